"""The backend for projects that synchronise with ``sync_catchup`` from cron and deliver nothing immediately."""

from .base import DeliveryBackend


class ManualDelivery(DeliveryBackend):
    """Delivers nothing."""

    def wake(self, kind: str, is_own: bool) -> None:
        """Do nothing: ``sync_catchup`` finds the mark in the database."""
