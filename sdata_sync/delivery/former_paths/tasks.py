"""Alias: ``sdata_sync.delivery.tasks.TaskDelivery`` is now in ``sdata_sync.delivery.backends.django_tasks``."""

from sdata_sync.delivery.backends.django_tasks import TaskDelivery

__all__ = ["TaskDelivery"]
