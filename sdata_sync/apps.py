"""The app: finds the projects' ``sync.py`` modules, and registers its checks and listeners."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class SDataSyncConfig(AppConfig):
    """What INSTALLED_APPS loads."""

    name = "sdata_sync"
    verbose_name = "SData synchronisation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what listens, then let every app register its resources."""
        from . import checks, delivery
        from .sync import capture

        checks.register_checks()
        capture.connect()
        delivery.connect()
        autodiscover_modules("sync")
