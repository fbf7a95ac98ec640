"""What one peer can delete and leave behind: mass deletions wait, and a flood of entries to decide is refused."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.contrib.messages.storage.fallback import FallbackStorage
from django.test import Client, RequestFactory
from rest_framework.authtoken.models import Token

from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.models import ConflictRecord, DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.content.deferred import retry_all
from sdata_sync.sync.db import clock
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..wire import APP1, APP2, diagnosis, digest_xml, entry_xml, feed_xml, post, results, ticks

pytestmark = pytest.mark.django_db
ACCOUNTS = registry.of_model(Account)


@pytest.fixture
def peer(db):
    user = User.objects.create_user("app1")
    user.user_permissions.set(Permission.objects.filter(codename__in=["read_feeds", "push_feeds"]))
    Peer.objects.create(name="app1", url=APP1.rpartition("/")[0], user=user)
    return Client(headers={"authorization": f"Token {Token.objects.create(user=user).key}"})


def limit(settings, **values):
    settings.SDATA_SYNC = {**settings.SDATA_SYNC, **values}


def accounts(count):
    """Create ``count`` accounts; return their uuids."""
    Account.objects.bulk_create([Account(name=f"account {n}") for n in range(count)])
    from sdata_sync.sync.stamp.scan import scan

    scan(ACCOUNTS)
    assign_ticks(ACCOUNTS)
    return list(TrackedResource.objects.filter(kind="accounts").order_by("pk").values_list("uuid", flat=True))


class Deleting:
    def __init__(self, client):
        self.client, self.tick = client, 0

    def __call__(self, uuids):
        first, self.tick = self.tick, self.tick + len(uuids)
        entries = [entry_xml(uuid, APP1, first + n + 1, deleted=True) for n, uuid in enumerate(uuids)]
        known = load_digest(ACCOUNTS).value.tick(APP2)
        digest = digest_xml((APP1, self.tick + 1), (APP2, known), origin=APP1)
        return results(post(self.client, feed_xml(digest, *entries)))


@pytest.fixture
def delete(peer):
    return Deleting(peer)


def act(action, entries):
    model_admin = admin.site._registry[DeferredEntry]
    request = RequestFactory().post("/")
    request.user, request.session = User.objects.create_superuser("admin"), {}
    request._messages = FallbackStorage(request)
    getattr(model_admin, action)(request, entries)


class TestMassDeletion:
    def test_more_rows_than_the_setting_wait(self, delete, settings):
        limit(settings, MAX_DELETIONS=5)
        uuids = accounts(30)
        assert {r.status for r in delete(uuids[:5])} == {200}
        said = delete(uuids[5:12])
        assert {(r.status, r.code) for r in said} == {(202, "MassDeletion")}
        assert Account.objects.count() == 25
        assert DeferredEntry.objects.count() == 7
        status = collect_status("here")
        assert not status.is_level
        assert next(kind for kind in status.kinds if kind.kind == "accounts").deferred == 7
        assert "MAX_DELETIONS" in DeferredEntry.objects.first().reason

    def test_a_larger_part_than_the_setting_waits(self, delete, settings):
        limit(settings, MAX_DELETION_PERCENT=20)
        uuids = accounts(100)
        for start in (0, 10):
            assert {r.status for r in delete(uuids[start : start + 10])} == {200}
        assert {r.code for r in delete(uuids[20:21])} == {"MassDeletion"}
        assert Account.objects.count() == 80

    def test_a_few_rows_of_a_small_kind_do_not(self, delete, settings):
        limit(settings, MAX_DELETION_PERCENT=20)
        uuids = accounts(10)
        assert {r.status for r in delete(uuids)} == {200}
        assert not Account.objects.exists()

    def test_the_count_ends_after_an_hour(self, delete, settings, monkeypatch):
        limit(settings, MAX_DELETIONS=5)
        uuids = accounts(30)
        delete(uuids[:5])
        usual = clock.read_ns
        monkeypatch.setattr(clock, "read_ns", lambda: usual() + 61 * 60 * 10**9)
        assert {r.status for r in delete(uuids[5:10])} == {200}

    def test_each_peer_is_counted_for_itself(self, delete, peer_client, settings):
        limit(settings, MAX_DELETIONS=5)
        uuids = accounts(30)
        delete(uuids[:5])
        other = "http://other/a/b/-/accounts"
        entry = entry_xml(uuids[9], other, 1, deleted=True)
        known = load_digest(ACCOUNTS).value
        digest = digest_xml((other, 2), (APP2, known.tick(APP2)), (APP1, known.tick(APP1)), origin=other)
        assert [r.status for r in results(post(peer_client, feed_xml(digest, entry)))] == [200]

    def test_it_is_not_tried_again_by_itself(self, delete, settings):
        limit(settings, MAX_DELETIONS=5)
        delete(accounts(30)[:9])
        limit(settings, MAX_DELETIONS=500)
        retry_all(ACCOUNTS)
        assert Account.objects.count() == 30

    @pytest.mark.parametrize(("action", "left"), [("apply_deletion", 21), ("keep_row", 30)])
    def test_all_of_it_is_confirmed_or_refused_together(self, delete, settings, action, left):
        limit(settings, MAX_DELETIONS=5)
        delete(accounts(30)[:9])
        act(action, DeferredEntry.objects.all()[:1].model.objects.filter(pk=DeferredEntry.objects.first().pk))
        assert Account.objects.count() == left
        assert not DeferredEntry.objects.exists()


class TestAFloodOfEntriesToDecide:
    BAD = "<name>x</name><creditLimit>much</creditLimit>"

    def flood(self, client, start, count, content):
        from uuid import uuid4

        entries = [entry_xml(uuid4(), APP1, start + n, content) for n in range(count)]
        return post(client, feed_xml(digest_xml((APP1, start + count), origin=APP1), *entries))

    def test_is_refused_before_the_digest_moves(self, peer, settings):
        limit(settings, MAX_WAITING=10)
        assert {r.status for r in results(self.flood(peer, 1, 8, self.BAD))} == {202}
        refused = self.flood(peer, 9, 5, self.BAD)
        assert (refused.status_code, diagnosis(refused)[0]) == (429, "TooManyWaiting")
        assert int(refused["Retry-After"]) > 0
        assert DeferredEntry.objects.count() == 8
        assert ticks(peer)[APP1] == 9
        assert {r.status for r in results(self.flood(peer, 9, 5, "<name>fine</name>"))} == {200}

    def test_of_another_login_is_counted_for_itself(self, peer, peer_client, settings):
        limit(settings, MAX_WAITING=10)
        self.flood(peer, 1, 10, self.BAD)
        other = "http://other/a/b/-/accounts"
        entry = entry_xml("C4411795-9943-4cf4-8705-0000000000aa", other, 1, self.BAD)
        [said] = results(post(peer_client, feed_xml(digest_xml((other, 2), origin=other), entry)))
        assert said.status == 202

    def test_of_conflicts_too(self, peer, settings):
        limit(settings, MAX_WAITING=3)
        uuids = accounts(6)
        entries = [entry_xml(uuid, APP1, n, f"<name>theirs {n}</name>") for n, uuid in enumerate(uuids, 1)]
        refused = post(peer, feed_xml(digest_xml((APP1, 7), origin=APP1), *entries))
        assert (refused.status_code, diagnosis(refused)[0]) == (429, "TooManyWaiting")
        assert not ConflictRecord.objects.exists()
        assert APP1 not in ticks(peer)
