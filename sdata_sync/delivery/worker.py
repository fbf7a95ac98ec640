"""The backend for projects that deliver from a process of its own: ``manage.py sync_deliver``."""

from .base import DeliveryBackend


class WorkerDelivery(DeliveryBackend):
    """Leaves the delivery to ``sync_deliver``, which looks for changes by itself."""

    def wake(self, kind: str, is_own: bool) -> None:
        """Do nothing: the mark is in the database, and the worker will find it."""
