"""The backend for projects that run Django's own tasks: ``django.tasks``, or ``django_tasks`` before Django 6.0.

What each task does is in ``jobs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from . import jobs
from .queue import QueueDelivery

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task  # type: ignore[no-redef,unused-ignore]


class TaskDelivery(QueueDelivery):
    """Deliver from the worker of the project's task backend."""

    def post(self, job: str, *arguments: object, delay: float = 0) -> None:
        """Enqueue the task; raises what the project's task backend raises."""
        post(job, *arguments, delay=delay)


def post(job: str, *arguments: object, delay: float = 0) -> bool:
    """Enqueue the task for ``job``, to be begun after ``delay`` seconds; false if the backend knows no later."""
    wanted = _TASKS[job]
    if delay:
        if not wanted.get_backend().supports_defer:
            return False
        wanted = wanted.using(run_after=timezone.now() + timedelta(seconds=delay))
    wanted.enqueue(*arguments)
    return True


@task()
def deliver(peer: int, kinds: Sequence[str] | None = None) -> None:
    """Bring a peer level in ``kinds``, or in all."""
    jobs.deliver(peer, kinds, post=post)


@task()
def heartbeat() -> None:
    """Have every peer compared with, and delivered to; once a minute."""
    jobs.heartbeat(post=post)


@task()
def compare(peer: int) -> None:
    """Run the heartbeat of one peer."""
    jobs.compare(peer, post=post)


@task()
def catch_up(peer: int | None = None) -> None:
    """Pull and push everything, for every peer or one; once a night."""
    jobs.catch_up(peer, post=post)


@task()
def carry_out(operation: int) -> None:
    """Carry out an asynchronous call of a peer."""
    jobs.carry_out(operation, post=post)


@task()
def scan() -> None:
    """Find what was changed past the signals; once a night."""
    jobs.scan(post=post)


@task()
def purge() -> None:
    """Forget the tombstones that every peer has; once a week."""
    jobs.purge(post=post)


_TASKS: dict[str, Any] = {
    "deliver": deliver,
    "heartbeat": heartbeat,
    "compare": compare,
    "catch_up": catch_up,
    "carry_out": carry_out,
    "scan": scan,
    "purge": purge,
}
