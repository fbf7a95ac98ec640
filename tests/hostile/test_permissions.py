"""The permission matrix: every URL, every method, every login. A URL that is added must be added here."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from rest_framework.authtoken.models import Token

from sdata_sync.api.urls import urlpatterns
from sdata_sync.models import Peer, TrackedResource
from testproject.crm.models import Account

from ..wire import APP1, ENTRY, FEED, PATH, digest_entry, digest_xml, feed_xml

pytestmark = pytest.mark.django_db
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PERMISSIONS = ("read_feeds", "push_feeds", "carry_feeds", "set_digest", "link_resources")
DATASET = PATH.rpartition("/")[0]
READ, PUSH, SET, LINK = "read_feeds", "push_feeds", "set_digest", "link_resources"
#: By the name of each URL: its path, and the permission that each method needs. Any login gets 405 for other methods.
MATRIX = {
    "sync-digest": ("{kind}/$syncDigest", {"GET": READ, "HEAD": READ, "PUT": SET, "POST": SET}),
    "sync-source": ("{kind}/$syncSource", {"GET": READ, "HEAD": READ, "POST": READ, "DELETE": READ}),
    "sync-target": (
        "{kind}/$syncTarget",
        {"GET": PUSH, "HEAD": PUSH, "POST": PUSH, "DELETE": PUSH, "OPTIONS": PUSH},
    ),
    "sync-results": ("{kind}/$syncResults", {"POST": PUSH}),
    "linked": ("{kind}/$linked", {"GET": READ, "HEAD": READ, "POST": LINK}),
    "linked-batch": ("{kind}/$linked/$batch", {"POST": LINK}),
    "linked-resource": ("{kind}/$linked('{uuid}')", {"GET": READ, "HEAD": READ, "PUT": LINK, "DELETE": LINK}),
    "schema": ("$schema", {"GET": READ, "HEAD": READ}),
    "kind-schema": ("{kind}/$schema", {"GET": READ, "HEAD": READ}),
    "collection": ("{kind}", {"GET": READ, "HEAD": READ}),
    "resource": ("{kind}('{key}')", {"GET": READ, "HEAD": READ}),
    "unknown": ("nothing/here", {}),
}
#: What answers a request that may be made: anything but a refusal of the login.
REFUSALS = (401, 403)


def bodies(method):
    if method in ("PUT",):
        return digest_entry((APP1, 1), origin=APP1), ENTRY
    return feed_xml(digest_xml((APP1, 1), origin=APP1)), FEED


@pytest.fixture
def ask(db):
    """Return a function that makes a request with some permissions, of a login that belongs to the peer at APP1."""
    account = Account.objects.create(name="one")
    Peer.objects.create(name="app1", url=APP1.rpartition("/")[0])
    from sdata_sync.registry import registry
    from sdata_sync.sync.stamp.stamper import assign_ticks

    assign_ticks(registry.of_model(Account))
    uuid = TrackedResource.objects.get().uuid

    def ask(name, method, permissions):
        path = MATRIX[name][0].format(kind="accounts", key=account.pk, uuid=uuid)
        headers = {}
        if permissions is not None:
            user = User.objects.create_user("login")
            user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
            headers["authorization"] = f"Token {Token.objects.create(user=user).key}"
        body, content_type = bodies(method)
        sent = {"data": body, "content_type": content_type} if method in ("POST", "PUT", "PATCH") else {}
        return Client(headers=headers).generic(method, f"{DATASET}/{path}", **sent).status_code

    return ask


def test_every_url_is_in_the_matrix():
    assert {pattern.name for pattern in urlpatterns} == MATRIX.keys()


CELLS = [(name, method) for name in MATRIX for method in METHODS]


@pytest.mark.parametrize(("name", "method"), CELLS)
class TestCell:
    def test_without_a_login(self, ask, name, method):
        assert ask(name, method, None) == 401

    def test_with_its_permission_alone(self, ask, name, method):
        needed = MATRIX[name][1].get(method)
        status = ask(name, method, [needed] if needed else [])
        assert status not in REFUSALS
        assert status < 500
        if needed is None:
            assert status in (404, 405) or (method == "OPTIONS" and status == 200)

    def test_with_all_other_permissions(self, ask, name, method):
        needed = MATRIX[name][1].get(method)
        status = ask(name, method, [p for p in PERMISSIONS if p != needed])
        assert (status == 403) is (needed is not None)
