"""Profiles of the random tests: ``make test`` runs 500 histories, ``make test-long`` 10,000, a second Python 100."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("ci", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


import pytest

#: The tests with third-party apps, and those of ``contrib.files``, need settings of their own.
OWN_SETTINGS = {"thirdparty": "tests.thirdparty.settings", "files": "tests.files.settings"}
collect_ignore = [
    name for name, settings in OWN_SETTINGS.items() if os.environ.get("DJANGO_SETTINGS_MODULE") != settings
]

#: Groups of tests that run on one worker, those first that take longest: then all workers are busy until the end.
LONGEST = (
    "histories",
    "related histories",
    "deletion histories",
    "queues",
    "linking",
    "many peers",
    "catchup-4",
    "scale",
    "malice",
    "deletions",
    "catchup-3",
    "catchup-1",
    "relations",
    "related",
    "related_edges",
    "killed",
    "line",
    "away",
    "withdrawals",
    "catchup-2",
    "pair",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Put the longest groups first; xdist gives them away in this order."""

    def place(item):
        marker = item.get_closest_marker("xdist_group")
        return LONGEST.index(marker.args[0]) if marker and marker.args[0] in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _cheap_databases():
    """Before pytest-django makes the databases."""
    from .databases import cheap_databases

    with cheap_databases():
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix, _cheap_databases):
    """As pytest-django has it, with ours before it."""


@pytest.fixture
def engineer(db):
    """The user of another application: may read, push and set digests."""
    from django.contrib.auth.models import Permission, User

    user = User.objects.create_user("engineer", password="secret")
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="sdata_sync"))
    return user


@pytest.fixture
def peer_client(engineer):
    """An HTTP client that is logged in with a token."""
    from django.test import Client
    from rest_framework.authtoken.models import Token

    token = Token.objects.create(user=engineer)
    return Client(headers={"authorization": f"Token {token.key}"})


@pytest.fixture(scope="session", autouse=True)
def _refuse_long_text():
    """Refuse text that is longer than its column in the tables of the app; SQLite stores it, the servers do not."""
    from django.db.models import CharField
    from django.db.utils import DataError

    prepare = CharField.get_db_prep_save

    def prepare_if_it_fits(field, value, connection):
        model = getattr(field, "model", None)  # a field that serves an expression has none
        is_ours = model is not None and model._meta.app_label == "sdata_sync"
        if is_ours and isinstance(value, str) and field.max_length is not None and len(value) > field.max_length:
            raise DataError(f"Expected {field.max_length} characters at most in {field}, received {value!r}.")
        return prepare(field, value, connection)

    CharField.get_db_prep_save = prepare_if_it_fits
    yield
    CharField.get_db_prep_save = prepare


@pytest.fixture(scope="session", autouse=True)
def _import_urls() -> None:
    """Import the URLs with the settings of the run: a test with another BASE_URL must not be the first to import them."""
    import testproject.urls  # noqa: F401
