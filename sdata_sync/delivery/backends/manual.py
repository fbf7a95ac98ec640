"""The backend for projects that are level by the hour or the night, not at once: ``sync_catchup`` from cron."""

from .base import DeliveryBackend


class ManualDelivery(DeliveryBackend):
    """Delivers nothing by itself."""

    def wake(self, kind: str, is_own: bool) -> None:
        """Do nothing: the mark is in the database, and ``sync_catchup`` finds it."""
