"""A node that was restored from a backup: its peers know ticks of it that it does not."""

import pytest
from django.core.management import call_command

from sdata_sync.models import ConflictRecord, Digest, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp import restore_gap as restore
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..seams import port_with
from ..wire import APP1, APP2, LATER, PATH, UUIDS, digest_xml, entry_xml, feed_xml, post, results

pytestmark = pytest.mark.django_db

ACCOUNTS = registry.of_kind("accounts")


def tick() -> int:
    return load_digest(ACCOUNTS).value.tick(APP2)


def feed(client, *entries, known, next_url="", priority=5):
    digest = digest_xml((APP1, 50, priority), (APP2, known), origin=APP1)
    return results(post(client, feed_xml(digest, *entries, mode="catchUp", next_url=next_url)))


def uuid_of(name) -> str:
    return str(TrackedResource.objects.get(local_key=Account.objects.get(name=name).pk).uuid)


@pytest.fixture
def backup(db):
    """What the backup holds: a peer, and three accounts, ticks 1 to 3."""
    Peer.objects.create(name="app1", url=APP1.rpartition("/")[0])
    for name in "abc":
        Account.objects.create(name=name)
    assign_ticks(ACCOUNTS)
    assert tick() == 4


def test_nothing_is_numbered_while_it_comes_back(peer_client, backup):
    Account.objects.create(name="since")
    feed(peer_client, entry_xml(UUIDS[0], APP2, 5, "<name>lost 5</name>"), known=10, next_url="more")
    assign_ticks(ACCOUNTS)
    assert TrackedResource.objects.filter(mark__isnull=False).count() == 1
    feed(peer_client, entry_xml(UUIDS[1], APP2, 8, "<name>lost 8</name>"), known=10)
    assert set(Account.objects.values_list("name", flat=True)) == {"a", "b", "c", "since", "lost 5", "lost 8"}
    assert TrackedResource.objects.get(local_key=Account.objects.get(name="since").pk).tick >= 10
    assert Digest.objects.get(pk="accounts").gap_until is None


def test_a_decision_on_one_page_does_not_hide_what_is_lost_on_the_next(peer_client, backup):
    account = Account.objects.get(name="a")
    account.city = "since"
    account.save()
    # Priority overrules the later stamp: an outcome that others must learn as a change of ours.
    theirs = entry_xml(uuid_of("a"), APP1, 9, "<name>a</name><city>theirs</city>", stamp="2001-01-01T00:00:00Z")
    feed(peer_client, theirs, known=10, next_url="more", priority=1)
    assert ConflictRecord.objects.get().rule == "conflict priority"
    feed(peer_client, entry_xml(UUIDS[1], APP2, 6, "<name>lost</name>"), known=10)
    assert Account.objects.filter(name="lost").exists()
    decided = TrackedResource.objects.get(uuid=uuid_of("a"))
    assert (decided.endpoint.url, decided.tick >= 10, Account.objects.get(name="a").city) == (APP2, True, "theirs")


def test_what_was_numbered_before_anybody_said_so_is_numbered_again(peer_client, backup):
    """Also deletions: a tombstone under a used tick would never reach whoever has that tick."""
    Account.objects.get(name="a").delete()
    edited = Account.objects.get(name="b")
    edited.city = "since"
    edited.save()
    assign_ticks(ACCOUNTS)
    assert tick() == 6
    feed(peer_client, entry_xml(UUIDS[0], APP2, 40, "<name>lost</name>"), known=50)
    assert TrackedResource.objects.get(is_deleted=True).tick >= 50
    assert TrackedResource.objects.get(local_key=edited.pk).tick >= 50
    assert tick() > 50


def test_a_reused_tick_does_not_overwrite_an_edit_unseen(peer_client, backup):
    edited = Account.objects.get(name="b")
    edited.city = "since"
    edited.save()
    assign_ticks(ACCOUNTS)
    lost = entry_xml(uuid_of("b"), APP2, 40, "<name>b</name><city>lost</city>", stamp=LATER)
    feed(peer_client, lost, known=50)
    assert Account.objects.get(name="b").city == "lost"
    assert (
        "<city>since</city>" in ConflictRecord.objects.get(remote_won=True, resource__uuid=uuid_of("b")).local_payload
    )


def test_cut_off_and_resumed(peer_client, backup):
    """The last of our lost changes came, and then the line broke before the feed's end."""
    Account.objects.create(name="since")
    feed(peer_client, entry_xml(UUIDS[0], APP2, 9, "<name>lost</name>"), known=10, next_url="more")
    assert tick() == 10
    assign_ticks(ACCOUNTS)
    assert TrackedResource.objects.filter(mark__isnull=False).exists()
    feed(peer_client, known=10)
    assert not TrackedResource.objects.filter(mark__isnull=False).exists()
    assert tick() > 10


def test_giving_up(peer_client, backup):
    Account.objects.create(name="since")
    feed(peer_client, entry_xml(UUIDS[0], APP2, 9, "<name>lost</name>"), known=10, next_url="more")
    Peer.objects.update(enabled=False)  # it is gone for good
    call_command("sync_rejoin", "--give-up")
    assert Digest.objects.get(pk="accounts").gap_until is None
    assign_ticks(ACCOUNTS)
    assert not TrackedResource.objects.filter(mark__isnull=False).exists()


def test_a_peer_that_keeps_it_to_itself_is_asked_again(backup, settings):
    settings.SDATA_SYNC = {**settings.SDATA_SYNC, "ASK_PEERS_FIRST": True}
    answers = [False, True]
    restore.forget_checks()

    with port_with(check_peers=lambda kind: answers.pop(0)):
        Account.objects.create(name="since")
        assert not restore.ensure_checked(ACCOUNTS)
        assert not restore.ensure_checked(ACCOUNTS)  # not asked: it is too early
        assign_ticks(ACCOUNTS)
        assert (answers, tick()) == ([True], 4)
        restore.forget_checks()
        assert restore.ensure_checked(ACCOUNTS)
        assign_ticks(ACCOUNTS)
        assert (answers, tick()) == ([], 5)


def test_a_process_without_a_change_asks_no_peer(peer_client, settings):
    """A start must not cost a request to each peer for each kind; the first tick does."""
    settings.SDATA_SYNC = {**settings.SDATA_SYNC, "ASK_PEERS_FIRST": True}
    restore.forget_checks()
    asked = []

    def check_peers(kind):
        asked.append(kind.name)
        return True

    with port_with(check_peers=check_peers):
        assert peer_client.get(f"{PATH}/$syncDigest").status_code == 200
        assert asked == []
        Account.objects.create(name="first")
        peer_client.get(f"{PATH}/$syncDigest")
        peer_client.get(f"{PATH}/$syncDigest")
        assert asked == ["accounts"]
    restore.forget_checks()
