"""The app: finds the projects' ``sync.py`` modules, and registers its checks and listeners."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules


class SDataSyncConfig(AppConfig):
    """What INSTALLED_APPS loads."""

    name = "sdata_sync"
    verbose_name = "SData synchronisation"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what listens, then let every app register its resources."""
        from . import checks, delivery
        from .sync.capture import signals as capture

        checks.register_checks()
        capture.connect()
        delivery.connect()
        autodiscover_modules("sync")
        post_migrate.connect(_after_migrate, sender=self)


def _after_migrate(*, using: str, **kwargs: Any) -> None:
    """Take over what was kept until the models knew it: an upgrade ends with a migrate."""
    from .registry import registry
    from .sync.content.upgrade import take_over_known

    for resource in registry:
        tables = connections[using].introspection.table_names()
        if resource.database == using and resource.model._meta.db_table in tables:
            take_over_known(resource)
