"""The settings of the tests with real third-party apps: ``make test-thirdparty``."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "polymorphic",
    "mptt",
    "treebeard",
    "simple_history",
    "reversion",
    "djmoney",
    "taggit",
    "parler",
    "model_utils",
    "guardian",
    "phonenumber_field",
    "django_countries",
    "wagtail.users",
    "wagtail.images",
    "wagtail.documents",
    "wagtail.admin",
    "wagtail",
    "modelcluster",
    "tests.thirdparty",
]
MIDDLEWARE = [*MIDDLEWARE, "simple_history.middleware.HistoryRequestMiddleware"]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "guardian.backends.ObjectPermissionBackend"]
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "German"), ("fr", "French")]
PARLER_LANGUAGES = {1: ({"code": "en"}, {"code": "de"}, {"code": "fr"}), "default": {"fallbacks": ["en"]}}
PHONENUMBER_DEFAULT_REGION = "GB"
WAGTAIL_SITE_NAME = "Test"
WAGTAILADMIN_BASE_URL = "http://www.example.com"
SILENCED_SYSTEM_CHECKS = ["guardian.W001"]
