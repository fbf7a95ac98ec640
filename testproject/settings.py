"""Settings of the test project. Everything that differs between two nodes comes from the environment."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DJANGO_DEBUG", "1").lower() in ("1", "true", "yes")
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-the-test-project-never-for-anything-else-0123456789")
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost,testserver,[::1]").split(",")

SDATA_BASE_URL = os.environ.get("SDATA_BASE_URL", "http://127.0.0.1:8000/sdata/myApp1/myContract/-")
SDATA_SYNC = {
    "BASE_URL": SDATA_BASE_URL,
    "CONFLICT_PRIORITY": int(os.environ.get("SDATA_CONFLICT_PRIORITY", "5")),
    "DELIVERY": os.environ.get("SDATA_DELIVERY", "sdata_sync.delivery.backends.thread.ThreadDelivery"),
    "HEARTBEAT_SECONDS": float(os.environ.get("SDATA_HEARTBEAT", "60")),
    "POLL_SECONDS": float(os.environ.get("SDATA_POLL_SECONDS", "30")),
    "MAX_DELETION_PERCENT": int(os.environ.get("SDATA_MAX_DELETION_PERCENT", "20")),
    "CREDENTIALS": json.loads(os.environ.get("SDATA_CREDENTIALS", "{}")),
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "sdata_sync",
    "testproject.crm",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "sdata_sync.middleware.SyncUserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "testproject.urls"
WSGI_APPLICATION = "testproject.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    # Kept open: to open a connection for each request costs more than to apply the change that it brings.
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL", f"sqlite:///{BASE_DIR / 'db.sqlite3'}"), conn_max_age=600
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        # A transaction that will write says so when it begins, and waits its turn; in WAL, readers do not wait.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ]
}

# Only where the deliveries run in a task queue.
if SDATA_BROKER := os.environ.get("SDATA_BROKER", ""):
    from celery.schedules import crontab

    CELERY_BROKER_URL = SDATA_BROKER
    CELERY_TASK_DEFAULT_QUEUE = os.environ.get("SDATA_QUEUE", "celery")
    CELERY_BEAT_SCHEDULE = {
        "what was missed": {"task": "sdata_sync.heartbeat", "schedule": SDATA_SYNC["HEARTBEAT_SECONDS"]},
        "every night": {"task": "sdata_sync.catch_up", "schedule": crontab(hour="3", minute="0")},
    }
if os.environ.get("SDATA_TASKS"):
    INSTALLED_APPS += [] if find_spec("django.tasks") else ["django_tasks"]
    INSTALLED_APPS += ["django_tasks_db"]
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"

# Only what a real deployment of the base URL's scheme would have; `check --deploy` asks for it.
if urlsplit(SDATA_BASE_URL).scheme == "https":
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"sdata_sync": {"level": os.environ.get("SDATA_LOG_LEVEL", "WARNING")}},
}
