"""Profiles of the random tests: ``make test`` runs 500 histories, ``make test-long`` 10,000."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("ci", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


import pytest


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
