"""The backend for projects that have Celery, and its tasks.

What each task does is in ``jobs``. A message is acknowledged when its task has ended, so that one whose worker is
killed is taken by another. No task takes longer than the half hour after which RabbitMQ gives up on a consumer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Task, current_app, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning
from django.db import InterfaceError, OperationalError

from ...sync.db.faults import register_fatal
from . import jobs
from .queue import QueueDelivery

register_fatal(SoftTimeLimitExceeded)

_COMMON: dict[str, Any] = {
    "ignore_result": True,
    "acks_late": True,
    "reject_on_worker_lost": True,
    # The database is away: soon again, then more rarely; after that the next heartbeat.
    "autoretry_for": (OperationalError, InterfaceError),
    "retry_backoff": True,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    "max_retries": 6,
}
_SHORT: dict[str, Any] = {**_COMMON, "soft_time_limit": 600, "time_limit": 660}
_LONG: dict[str, Any] = {**_COMMON, "soft_time_limit": 1500, "time_limit": 1600}


class CeleryDelivery(QueueDelivery):
    """Delivers from Celery's workers."""

    def post(self, job: str, *arguments: object, delay: float = 0) -> None:
        """Send the task; raises what the broker's client raises, soon: a broker that is away is tried again."""
        post(job, *arguments, delay=delay)

    def check(self) -> Sequence[CheckMessage]:
        """Return a warning if this process has loaded no Celery app with a broker."""
        if current_app.conf.broker_write_url or current_app.conf.task_always_eager:
            return []
        return [
            CheckWarning(
                "SDATA_SYNC['DELIVERY'] is Celery, but this process has not loaded an app of Celery with a broker.",
                hint="Import the project's app in the package of its settings: from .celery import app as celery_app",
                id="sdata_sync.W004",
            )
        ]


def post(job: str, *arguments: object, delay: float = 0) -> bool:
    """Send the task for ``job``, to be begun after ``delay`` seconds; false if tasks are done at once, not queued."""
    if delay and current_app.conf.task_always_eager:
        return False
    task: Task[Any, Any] = _TASKS[job]
    task.apply_async(arguments, countdown=delay, retry=False)
    return True


@shared_task(name="sdata_sync.deliver", **_SHORT)
def deliver(peer: int, kinds: Sequence[str] | None = None) -> None:
    """Bring a peer level in ``kinds``, or in all."""
    jobs.deliver(peer, kinds, post=post)


@shared_task(name="sdata_sync.heartbeat", **_SHORT)
def heartbeat() -> None:
    """Have every peer compared with, and delivered to; for the beat, once a minute."""
    jobs.heartbeat(post=post)


@shared_task(name="sdata_sync.compare", **_SHORT)
def compare(peer: int) -> None:
    """Run the heartbeat of one peer."""
    jobs.compare(peer, post=post)


@shared_task(name="sdata_sync.catch_up", **_LONG)
def catch_up(peer: int | None = None) -> None:
    """Pull and push everything, for every peer or one; for the beat, once a night."""
    try:
        jobs.catch_up(peer, post=post)
    except SoftTimeLimitExceeded:
        post("catch_up", peer)  # it goes on where it was


@shared_task(name="sdata_sync.carry_out", **_LONG)
def carry_out(operation: int) -> None:
    """Carry out an asynchronous call of a peer."""
    jobs.carry_out(operation, post=post)


@shared_task(name="sdata_sync.scan", **_LONG)
def scan() -> None:
    """Find what was changed past the signals; for the beat, once a night."""
    jobs.scan(post=post)


@shared_task(name="sdata_sync.purge", **_LONG)
def purge() -> None:
    """Forget the tombstones that every peer has; for the beat, once a week."""
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
