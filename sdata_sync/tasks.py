"""Where Celery's autodiscovery finds the tasks; they are in ``delivery.backends.celery``."""

from .delivery.backends.celery import carry_out, catch_up, compare, deliver, heartbeat, purge, scan

__all__ = ["carry_out", "catch_up", "compare", "deliver", "heartbeat", "purge", "scan"]
