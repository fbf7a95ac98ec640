"""Expose the tasks of ``delivery.backends.celery`` to Celery's autodiscovery."""

from .delivery.backends.celery import carry_out, catch_up, compare, deliver, heartbeat, purge, scan

__all__ = ["carry_out", "catch_up", "compare", "deliver", "heartbeat", "purge", "scan"]
