"""Configure the app: import the ``sync.py`` modules of all apps, and connect checks and signal receivers."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules


class SDataSyncConfig(AppConfig):
    """Configure the app for ``INSTALLED_APPS``."""

    name = "sdata_sync"
    verbose_name = "SData synchronisation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the signal receivers, then let every app register its resources."""
        from . import checks, delivery
        from .sync.capture import signals as capture

        checks.register_checks()
        capture.connect()
        delivery.connect()
        autodiscover_modules("sync")
        post_migrate.connect(_after_migrate, sender=self)


def _after_migrate(*, using: str, **kwargs: Any) -> None:
    """Write stored unknown elements to columns that a migration has added; respell local keys of earlier versions."""
    from .checks.database import has_table
    from .models import Digest, DigestEntry, TrackedResource
    from .registry import registry
    from .sync.content.upgrade import adopt_known_elements
    from .sync.log.tracked import respell_keys

    if not all(has_table(using, model) for model in (Digest, DigestEntry, TrackedResource)):
        return  # an earlier migration of this app was migrated to
    tables = connections[using].introspection.table_names()
    for kind in registry:
        if kind.database == using and kind.model._meta.db_table in tables:
            adopt_known_elements(kind)
            respell_keys(kind)
