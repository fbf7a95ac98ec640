"""URLs of the test project: the admin, and the dataset at the path of its base URL."""

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

from sdata_sync.conf import conf
from sdata_sync.metrics import view as metrics

urlpatterns = [
    path("admin/", admin.site.urls),
    path("metrics/", metrics),
    path(conf.base_path, include("sdata_sync.urls")),
    *staticfiles_urlpatterns(),  # with DEBUG only, so that the admin of the demo looks like one
]
