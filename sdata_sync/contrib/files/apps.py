"""Configure the app: note the files of received rows, and fetch them when a peer is visited."""

from django.apps import AppConfig


class FilesConfig(AppConfig):
    """Configure the app for ``INSTALLED_APPS``; it needs ``sdata_sync`` too."""

    name = "sdata_sync.contrib.files"
    label = "sdata_sync_files"
    verbose_name = "Files of synchronised rows"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the signal receiver, and add the errand."""
        from ...delivery.session import Errand, add_errand
        from ...registry import resource_registered
        from ...signals import resource_applied
        from .fetch import fetch_files, missing_files
        from .wanted import connect_models, is_of_interest, on_resource_applied

        resource_registered.connect(connect_models, dispatch_uid=self.name)
        connect_models()
        resource_applied.connect(on_resource_applied, dispatch_uid=self.name)
        add_errand(Errand("files", fetch_files, is_of_interest, missing_files))
