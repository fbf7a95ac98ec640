"""Stamps from the future: a clock that is wrong by a year, or a peer that wants to win every conflict."""

import pytest
from django.utils import timezone

from sdata_sync.models import ConflictRecord, DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.content.deferred import retry_all
from sdata_sync.sync.db import clock
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..wire import APP1, UUIDS, digest_xml, entry_xml, feed_xml, post, results, ticks

pytestmark = pytest.mark.django_db
ACCOUNTS = registry.of_model(Account)
FUTURE = "9999-12-31T23:59:59Z"
THEIRS = "<name>theirs</name>"


def receive(client, *entries, digest=((APP1, 50),)):
    return results(post(client, feed_xml(digest_xml(*digest, origin=APP1), *entries)))


@pytest.fixture(autouse=True)
def _peer(db, settings):
    settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_STAMP_AHEAD_SECONDS": 24 * 60 * 60}
    Peer.objects.create(name="app1", url=APP1.rpartition("/")[0])


def ours():
    """Return the uuid of an account of this node, with a tick."""
    Account.objects.create(name="ours")
    assign_ticks(ACCOUNTS)
    return TrackedResource.objects.get(kind="accounts").uuid


def in_a_year(monkeypatch, years=1):
    later = timezone.timedelta(days=366 * years)
    usual = clock.read_ns
    monkeypatch.setattr(clock, "read_ns", lambda: usual() + int(later.total_seconds() * 1e9))


class TestANewRow:
    def test_is_deferred_and_shown(self, peer_client):
        [said] = receive(peer_client, entry_xml(UUIDS[0], APP1, 1, THEIRS, stamp=FUTURE))
        assert (said.status, said.code) == (202, "StampAhead")
        assert not Account.objects.exists()
        assert "clock" in DeferredEntry.objects.get().reason
        assert ticks(peer_client)[APP1] == 2

    def test_waits_until_the_clock_has_come_nearer(self, peer_client, monkeypatch):
        soon = (timezone.now() + timezone.timedelta(days=300)).strftime("%Y-%m-%dT%H:%M:%SZ")
        receive(peer_client, entry_xml(UUIDS[0], APP1, 1, THEIRS, stamp=soon))
        retry_all(ACCOUNTS)
        assert not Account.objects.exists()
        in_a_year(monkeypatch)
        retry_all(ACCOUNTS)
        assert Account.objects.get().name == "theirs"
        assert not DeferredEntry.objects.exists()

    def test_a_later_version_with_a_right_stamp_replaces_it(self, peer_client):
        receive(peer_client, entry_xml(UUIDS[0], APP1, 1, THEIRS, stamp=FUTURE))
        [said] = receive(peer_client, entry_xml(UUIDS[0], APP1, 2, "<name>right</name>"))
        assert said.status == 200
        assert Account.objects.get().name == "right"
        assert not DeferredEntry.objects.exists()

    def test_within_the_setting_it_is_applied(self, peer_client):
        tomorrow = (timezone.now() + timezone.timedelta(hours=23)).strftime("%Y-%m-%dT%H:%M:%SZ")
        [said] = receive(peer_client, entry_xml(UUIDS[0], APP1, 1, THEIRS, stamp=tomorrow))
        assert said.status == 200


class TestARowOfThisNode:
    @pytest.mark.parametrize("deleted", [False, True])
    def test_wins_the_conflict(self, peer_client, deleted):
        uuid = ours()
        [said] = receive(peer_client, entry_xml(uuid, APP1, 1, THEIRS, stamp=FUTURE, deleted=deleted))
        assert (said.status, said.code) == (409, "ConflictLost")
        assert Account.objects.get().name == "ours"
        record = ConflictRecord.objects.get()
        assert not record.remote_won
        assert deleted or "theirs" in record.remote_payload

    @pytest.mark.parametrize("deleted", [False, True])
    def test_keeps_its_content_while_the_later_version_waits(self, peer_client, deleted):
        uuid = ours()
        entry = entry_xml(uuid, APP1, 1, THEIRS, stamp=FUTURE, deleted=deleted)
        from ..wire import APP2

        [said] = receive(peer_client, entry, digest=((APP1, 2), (APP2, 2)))  # they have seen our version
        assert (said.status, said.code) == (202, "StampAhead")
        assert Account.objects.get().name == "ours"

    def test_is_edited_with_the_time_of_the_edit(self, peer_client):
        from ..wire import APP2

        uuid = ours()
        receive(peer_client, entry_xml(uuid, APP1, 1, THEIRS, stamp=FUTURE), digest=((APP1, 2), (APP2, 2)))
        account = Account.objects.get()
        account.city = "York"
        account.save()
        assign_ticks(ACCOUNTS)
        tracked = TrackedResource.objects.get(uuid=uuid)
        assert tracked.stamp <= clock.now()
        assert not tracked.is_deferred


def test_the_same_thing_with_a_stamp_from_the_future_does_not_replace_ours(peer_client):
    import sdata_sync

    [usual] = [type(registry.of_kind("accounts").declared)]
    sdata_sync.unregister(Account)

    class Linked(sdata_sync.SyncResource):
        def find_duplicate(self, instance):
            return Account.objects.filter(name=instance.name).first()

    try:
        with sdata_sync.registered(Account, Linked):
            Account.objects.create(name="ours", city="York")
            [said] = receive(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>ours</name>", stamp=FUTURE))
            assert (said.status, said.code) == (202, "StampAhead")
            assert Account.objects.get().city == "York"
    finally:
        sdata_sync.register(Account)(usual)
