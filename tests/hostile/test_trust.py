"""Whom a login speaks for: its own peer, and with ``carry_feeds`` every endpoint."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from rest_framework.authtoken.models import Token

from sdata_sync.models import DigestEntry, Endpoint, Operation, Peer, Run
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from testproject.crm.models import Account

from ..wire import (
    APP1,
    APP2,
    APP3,
    ENTRY,
    FEED,
    PATH,
    UUIDS,
    diagnosis,
    digest_entry,
    digest_xml,
    entry_xml,
    feed_xml,
    post,
    results,
    ticks,
)

pytestmark = pytest.mark.django_db
ACCOUNTS = registry.of_model(Account)
FINE = "<name>fine</name>"
BASIC = ("read_feeds", "push_feeds")


def dataset(endpoint):
    return endpoint.rpartition("/")[0]


def login(name, *permissions):
    """Return a user with the permissions, and a client that is logged in as that user."""
    user = User.objects.create_user(name)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions or BASIC))
    return user, Client(headers={"authorization": f"Token {Token.objects.create(user=user).key}"})


@pytest.fixture
def pusher(db):
    """A login that belongs to the peer at APP1."""
    user, client = login("app1")
    Peer.objects.create(name="app1", url=dataset(APP1), user=user)
    return client


@pytest.fixture
def stranger(db):
    """A login that belongs to no peer."""
    return login("stranger")[1]


def feed_of(endpoint, tick=1, *, origin=None, digest=(), mode="immediate", uuid=UUIDS[0], content=FINE):
    said = digest_xml((endpoint, tick + 1), *digest, origin=endpoint if origin is None else origin)
    return feed_xml(said, entry_xml(uuid, endpoint, tick, content), mode=mode)


class TestALoginOfAPeer:
    def test_speaks_for_its_peer(self, pusher):
        assert [r.status for r in results(post(pusher, feed_of(APP1)))] == [200]
        assert ticks(pusher)[APP1] == 2

    def test_a_feed_without_an_origin_is_of_its_peer(self, pusher):
        feed = feed_of(APP1, origin="", digest=((APP3, 5),), mode="catchUp")
        assert [r.status for r in results(post(pusher, feed))] == [200]
        assert ticks(pusher) == {APP1: 2, APP2: 1, APP3: 5}

    @pytest.mark.parametrize("origin", [APP3, "http://elsewhere/a/b/-/accounts"])
    @pytest.mark.parametrize("mode", ["immediate", "catchUp"])
    def test_does_not_speak_for_others(self, pusher, origin, mode):
        response = post(pusher, feed_of(origin, mode=mode))
        assert (response.status_code, diagnosis(response)[0]) == (403, "NotTrusted")
        assert "app1" in response.content.decode()
        assert not Account.objects.exists()
        assert ticks(pusher) == {APP2: 1}
        assert not Endpoint.objects.filter(url=origin).exists()

    def test_does_not_speak_for_another_peer(self, pusher):
        Peer.objects.create(name="app3", url=dataset(APP3))
        response = post(pusher, feed_of(APP3))
        assert (response.status_code, diagnosis(response)[0]) == (403, "NotTrusted")

    def test_may_relay_what_others_changed(self, pusher):
        feed = feed_of(APP3, origin=APP1, digest=((APP1, 1),))
        assert [r.status for r in results(post(pusher, feed))] == [200]
        assert ticks(pusher)[APP3] == 2

    def test_with_carry_feeds_speaks_for_every_endpoint(self, db):
        user, client = login("engine", *BASIC, "carry_feeds")
        Peer.objects.create(name="app1", url=dataset(APP1), user=user)
        assert [r.status for r in results(post(client, feed_of(APP3, digest=((APP1, 5),), mode="catchUp")))] == [200]
        assert ticks(client) == {APP1: 5, APP2: 1, APP3: 2}

    @pytest.mark.parametrize("path", ["$syncDigest", "$schema", "", "$linked"])
    def test_of_a_disabled_peer_may_do_nothing(self, pusher, path):
        Peer.objects.update(enabled=False)
        response = pusher.get(f"{PATH}/{path}" if path else PATH)
        assert (response.status_code, diagnosis(response)[0]) == (403, "NotTrusted")
        assert "disabled" in response.content.decode()
        assert post(pusher, feed_of(APP1)).status_code == 403
        assert not Account.objects.exists()


class TestALoginWithoutAPeer:
    def test_speaks_for_a_peer_without_a_login(self, stranger):
        Peer.objects.create(name="app1", url=dataset(APP1))
        feed = feed_of(APP1, digest=((APP3, 5),), mode="catchUp")
        assert [r.status for r in results(post(stranger, feed))] == [200]
        assert ticks(stranger)[APP3] == 5

    def test_not_for_a_peer_that_has_a_login(self, stranger, pusher):
        response = post(stranger, feed_of(APP1))
        assert (response.status_code, diagnosis(response)[0]) == (403, "NotTrusted")
        assert "'stranger'" in response.content.decode()

    def test_not_for_a_disabled_peer(self, stranger):
        Peer.objects.create(name="app1", url=dataset(APP1), enabled=False)
        assert post(stranger, feed_of(APP1)).status_code == 403

    @pytest.mark.parametrize("mode", ["immediate", "catchUp"])
    def test_brings_changes_of_its_own_endpoint_and_claims_nothing_else(self, stranger, mode):
        feed = feed_of(APP1, digest=((APP3, 50), (APP2, 50)), mode=mode)
        response = post(stranger, feed)
        assert response.status_code == (200 if mode == "catchUp" else 400)  # a restore is not for a stranger to say
        if mode == "catchUp":
            assert [r.status for r in results(response)] == [200]
            assert ticks(stranger) == {APP1: 2, APP2: 1}

    def test_brings_no_change_of_a_third_endpoint(self, stranger):
        entries = [entry_xml(UUIDS[0], APP1, 1, FINE), entry_xml(UUIDS[1], APP3, 1, FINE)]
        said = results(post(stranger, feed_xml(digest_xml((APP1, 2), (APP3, 2), origin=APP1), *entries)))
        assert [(r.status, r.code) for r in said] == [(200, ""), (403, "NotTrusted")]
        assert ticks(stranger) == {APP1: 2, APP2: 1}

    def test_a_feed_without_an_origin_brings_nothing(self, stranger):
        said = results(post(stranger, feed_of(APP1, origin="")))
        assert [(r.status, r.code) for r in said] == [(403, "NotTrusted")]
        assert not Account.objects.exists()

    def test_sets_no_priority_of_another_endpoint(self, stranger):
        Peer.objects.create(name="app3", url=dataset(APP3))
        results(post(stranger, feed_of(APP3)))
        feed = feed_xml(digest_xml((APP1, 2, 1), (APP3, 2, 9), origin=APP1), entry_xml(UUIDS[1], APP1, 1, FINE))
        assert [r.status for r in results(post(stranger, feed))] == [200]
        assert load_digest(ACCOUNTS).value.conflict_priority(APP3) == 5
        assert load_digest(ACCOUNTS).value.conflict_priority(APP1) == 1

    def test_fills_a_tenth_of_the_room_for_endpoints(self, stranger, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_ENDPOINTS": 30}
        said = [
            results(post(stranger, feed_of(f"http://x{n}/a/b/-/accounts", uuid=UUIDS[n])))[0].status for n in range(6)
        ]
        assert said == [200, 200, 200, 409, 409, 409]
        assert DigestEntry.objects.count() <= 4
        Peer.objects.create(name="app1", url=dataset(APP1))
        assert [r.status for r in results(post(stranger, feed_of(APP1, uuid=UUIDS[9])))] == [200]


class TestOtherWays:
    def test_a_digest_is_set_for_the_own_peer_only(self, db):
        user, client = login("app1", *BASIC, "set_digest")
        Peer.objects.create(name="app1", url=dataset(APP1), user=user)
        url = f"{PATH}/$syncDigest"
        refused = client.put(url, data=digest_entry((APP3, 9), origin=APP3), content_type=ENTRY)
        assert (refused.status_code, diagnosis(refused)[0]) == (403, "NotTrusted")
        taken = client.put(url, data=digest_entry((APP1, 9), origin=APP1), content_type=ENTRY)
        assert taken.status_code == 200
        assert ticks(client) == {APP1: 9, APP2: 1}

    def test_a_stranger_sets_no_digest(self, db):
        _, client = login("stranger", *BASIC, "set_digest")
        refused = client.put(f"{PATH}/$syncDigest", data=digest_entry((APP1, 9), origin=APP1), content_type=ENTRY)
        assert (refused.status_code, diagnosis(refused)[0]) == (403, "NotTrusted")
        assert ticks(client) == {APP2: 1}

    def test_results_are_reported_for_the_own_peer_only(self, pusher):
        feed = feed_xml(digest_xml((APP3, 1), origin=APP3))
        refused = pusher.post(f"{PATH}/$syncResults?runName=r", data=feed, content_type=FEED)
        assert (refused.status_code, diagnosis(refused)[0]) == (403, "NotTrusted")
        assert not Run.objects.exists()

    def test_an_operation_belongs_to_the_login_that_began_it(self, pusher, stranger):
        url = f"{PATH}/$syncTarget?trackingID=abc"
        Peer.objects.create(name="app3", url=dataset(APP3))
        first = pusher.post(url, data=feed_of(APP1), content_type=FEED)
        assert first.status_code == 202
        assert stranger.get(f"{PATH}/$syncTarget('abc')").status_code == 404
        assert stranger.delete(f"{PATH}/$syncTarget('abc')").status_code == 404
        second = stranger.post(url, data=feed_of(APP3), content_type=FEED)
        assert second.status_code == 202
        assert Operation.objects.count() == 2
        assert pusher.get(f"{PATH}/$syncTarget('abc')").status_code in (200, 202)

    def test_a_login_has_a_bounded_number_of_open_operations(self, pusher, stranger, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_OPERATIONS": 3}
        url = f"{PATH}/$syncSource"

        def begin(client, name):
            body = digest_entry(origin=APP1 if client is pusher else "")
            return client.post(f"{url}?trackingID={name}", data=body, content_type=ENTRY)

        assert [begin(pusher, f"n{n}").status_code for n in range(3)] == [202] * 3
        refused = begin(pusher, "one more")
        assert (refused.status_code, diagnosis(refused)[0]) == (429, "TooManyOperations")
        assert int(refused["Retry-After"]) > 0
        assert begin(pusher, "n1").status_code == 202  # repeated
        assert begin(stranger, "n1").status_code == 202

    def test_an_operation_of_a_login_whose_peer_was_disabled_fails(self, pusher):
        assert pusher.post(f"{PATH}/$syncTarget?trackingID=x", data=feed_of(APP1), content_type=FEED).status_code == 202
        Peer.objects.update(enabled=False)
        from sdata_sync.sync.operations import carry_out

        carry_out(Operation.objects.get().pk)
        Peer.objects.update(enabled=True)
        response = pusher.get(f"{PATH}/$syncTarget('x')")
        assert (response.status_code, diagnosis(response)[0]) == (403, "NotTrusted")
        assert not Account.objects.exists()
