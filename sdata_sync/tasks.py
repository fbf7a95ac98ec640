"""The Celery tasks, where Celery's autodiscovery looks for them.

The jobs that the tasks run are in ``delivery.backends.jobs``. A message is acknowledged when its task has ended, so
that the message of a killed worker is taken by another worker. No task takes longer than 30 minutes, after which
RabbitMQ gives up on a consumer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Task, current_app, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import InterfaceError, OperationalError

from .delivery.backends import jobs
from .sync.db.faults import register_fatal

register_fatal(SoftTimeLimitExceeded)

_COMMON: dict[str, Any] = {
    "ignore_result": True,
    "acks_late": True,
    "reject_on_worker_lost": True,
    # Errors of a database that cannot be reached: tried again soon, then less often; then the next heartbeat delivers.
    "autoretry_for": (OperationalError, InterfaceError),
    "retry_backoff": True,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    "max_retries": 6,
}
_SHORT: dict[str, Any] = {**_COMMON, "soft_time_limit": 600, "time_limit": 660}
_LONG: dict[str, Any] = {**_COMMON, "soft_time_limit": 1500, "time_limit": 1600}


def post(job: str, *arguments: object, delay: float = 0) -> bool:
    """Send the task for ``job``, to run after ``delay`` seconds; return False if tasks run eagerly and cannot wait."""
    if delay and current_app.conf.task_always_eager:
        return False
    task: Task[Any, Any] = _TASKS[job]
    task.apply_async(arguments, countdown=delay, retry=False)
    return True


@shared_task(name="sdata_sync.deliver", **_SHORT)
def deliver(peer: int, kinds: Sequence[str] | None = None) -> None:
    """Push ``kinds``, by default all, to a peer."""
    jobs.deliver(peer, kinds, post=post)


@shared_task(name="sdata_sync.heartbeat", **_SHORT)
def heartbeat() -> None:
    """Compare and deliver to every peer; for Celery beat, once a minute."""
    jobs.heartbeat(post=post)


@shared_task(name="sdata_sync.compare", **_SHORT)
def compare(peer: int) -> None:
    """Compare digests with one peer, then deliver."""
    jobs.compare(peer, post=post)


@shared_task(name="sdata_sync.catch_up", **_LONG)
def catch_up(peer: int | None = None) -> None:
    """Pull and push all changes, for every peer or one; for Celery beat, once a night."""
    try:
        jobs.catch_up(peer, post=post)
    except SoftTimeLimitExceeded:
        post("catch_up", peer)  # the next task continues where this one stopped


@shared_task(name="sdata_sync.carry_out", **_LONG)
def carry_out(operation: int) -> None:
    """Run an asynchronous call of a peer."""
    jobs.carry_out(operation, post=post)


@shared_task(name="sdata_sync.scan", **_LONG)
def scan() -> None:
    """Find changes that no signal reported; for Celery beat, once a night."""
    jobs.scan(post=post)


@shared_task(name="sdata_sync.purge", **_LONG)
def purge() -> None:
    """Remove the tombstones that every peer has; for Celery beat, once a week."""
    jobs.purge(post=post)


_TASKS: dict[str, Any] = {name: globals()[name] for name in jobs.NAMES}
