"""Alias: ``sdata_sync.delivery.worker.WorkerDelivery`` is now in ``sdata_sync.delivery.backends.worker``."""

from sdata_sync.delivery.backends.worker import WorkerDelivery

__all__ = ["WorkerDelivery"]
