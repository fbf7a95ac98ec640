"""Export the URL patterns that a project includes at the path of its ``BASE_URL``."""

from django.apps import apps

from .api.urls import app_name, urlpatterns

if apps.is_installed("sdata_sync.contrib.files"):
    from .contrib.files.urls import urlpatterns as files

    urlpatterns = [*files, *urlpatterns]

__all__ = ["app_name", "urlpatterns"]
