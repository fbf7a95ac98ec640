"""The backend for projects with Django's tasks: ``django.tasks``, or ``django_tasks`` before Django 6.0.

The jobs that the tasks run are in ``jobs``.
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
        """Enqueue the task; an error of the task backend is raised as it is."""
        post(job, *arguments, delay=delay)


def post(job: str, *arguments: object, delay: float = 0) -> bool:
    """Enqueue the task for ``job``, to run after ``delay`` seconds; return False if the backend cannot delay tasks."""
    wanted = _TASKS[job]
    if delay:
        if not wanted.get_backend().supports_defer:
            return False
        wanted = wanted.using(run_after=timezone.now() + timedelta(seconds=delay))
    wanted.enqueue(*arguments)
    return True


@task()
def deliver(peer: int, kinds: Sequence[str] | None = None) -> None:
    """Push ``kinds``, by default all, to a peer."""
    jobs.deliver(peer, kinds, post=post)


@task()
def heartbeat() -> None:
    """Compare and deliver to every peer; once a minute."""
    jobs.heartbeat(post=post)


@task()
def compare(peer: int) -> None:
    """Compare digests with one peer, then deliver."""
    jobs.compare(peer, post=post)


@task()
def catch_up(peer: int | None = None) -> None:
    """Pull and push all changes, for every peer or one; once a night."""
    jobs.catch_up(peer, post=post)


@task()
def carry_out(operation: int) -> None:
    """Run an asynchronous call of a peer."""
    jobs.carry_out(operation, post=post)


@task()
def scan() -> None:
    """Find changes that no signal reported; once a night."""
    jobs.scan(post=post)


@task()
def purge() -> None:
    """Remove the tombstones that every peer has; once a week."""
    jobs.purge(post=post)


_TASKS: dict[str, Any] = {name: globals()[name] for name in jobs.NAMES}
