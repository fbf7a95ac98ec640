"""The backend for projects with Celery; the tasks are in ``sdata_sync.tasks``."""

from __future__ import annotations

from collections.abc import Sequence

from celery import current_app
from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning

from ...tasks import post
from .queue import QueueDelivery


class CeleryDelivery(QueueDelivery):
    """Delivers from Celery's workers."""

    def post(self, job: str, *arguments: object, delay: float = 0) -> None:
        """Send the task; an error of the broker is raised without retries, because the notifier tries again."""
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
