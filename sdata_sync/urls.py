"""Export the URL patterns that a project includes at the path of its ``BASE_URL``."""

from .api.urls import app_name, urlpatterns

__all__ = ["app_name", "urlpatterns"]
