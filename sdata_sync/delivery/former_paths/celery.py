"""Alias: ``sdata_sync.delivery.celery.CeleryDelivery`` is now in ``sdata_sync.delivery.backends.celery``."""

from sdata_sync.delivery.backends.celery import CeleryDelivery

__all__ = ["CeleryDelivery"]
