"""Map the URL of a file; ``sdata_sync.urls`` includes it if the app is installed."""

from django.urls import re_path

from .views import FileView

urlpatterns = [
    re_path(r"^(?P<kind>[^/$]+)/\$(?P<operation>(?i:file))\('(?P<uuid>[^/']+)'\)/?$", FileView.as_view(), name="file"),
]
