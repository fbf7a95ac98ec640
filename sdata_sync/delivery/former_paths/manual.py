"""Alias: ``sdata_sync.delivery.manual.ManualDelivery`` is now in ``sdata_sync.delivery.backends.manual``."""

from sdata_sync.delivery.backends.manual import ManualDelivery

__all__ = ["ManualDelivery"]
