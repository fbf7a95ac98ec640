"""Alias: ``sdata_sync.delivery.thread.ThreadDelivery`` is now in ``sdata_sync.delivery.backends.thread``."""

from sdata_sync.delivery.backends.thread import ThreadDelivery

__all__ = ["ThreadDelivery"]
