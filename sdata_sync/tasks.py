"""Expose the tasks of ``delivery.celery`` to Celery's autodiscovery."""

from .delivery.celery import carry_out, catch_up, compare, deliver, heartbeat, purge, scan

__all__ = ["carry_out", "catch_up", "compare", "deliver", "heartbeat", "purge", "scan"]
