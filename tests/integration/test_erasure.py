"""``sync_purge --erase``: what is stored of one resource beside its row is erased, and who may still have it is named."""

import json
from datetime import timedelta

import pytest
from django.core.management import CommandError
from django.utils import timezone

from sdata_sync.models import ConflictRecord, DeferredEntry, TrackedResource
from testproject.crm.models import Account

from ..many_nodes import two_nodes
from ..talk import pull, push, run

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("erasure"),
]


@pytest.fixture
def nodes(monkeypatch):
    with two_nodes(monkeypatch) as nodes:
        yield nodes


@pytest.fixture
def a(nodes):
    return nodes[0]


@pytest.fixture
def b(nodes):
    return nodes[1]


def uuid_at(node):
    with node.at_work():
        return TrackedResource.objects.get(kind="accounts").uuid


@pytest.fixture
def edited_at_both(a, b):
    """An account with a conflict at node b."""
    with a.at_work():
        Account.objects.create(name="Ann Smith")
    push(a, b)
    for node, city in ((a, "York"), (b, "Leeds")):
        with node.at_work():
            account = Account.objects.get()
            account.city = city
            account.save()
    push(a, b)
    with b.at_work():
        assert ConflictRecord.objects.count() == 1
    return uuid_at(b)


def test_conflicts_and_unknown_elements_are_erased(a, b, edited_at_both, capsys):
    with b.at_work():
        TrackedResource.objects.update(extra="<unknown>of Ann</unknown>")
    status, output = run(b, capsys, "sync_purge", "--erase", "accounts", str(edited_at_both))
    assert "erased 1 conflicts, 0 deferred entries, 1 texts of unknown elements" in output
    assert "The row is still here" in output
    assert "node0 may still have it" in output
    assert status == 1
    with b.at_work():
        assert not ConflictRecord.objects.exists()
        assert TrackedResource.objects.get().extra == ""
        assert Account.objects.exists()


def test_after_the_deletion_has_arrived_no_peer_has_it(a, b, edited_at_both, capsys):
    pull(a, b)
    with b.at_work():
        Account.objects.get().delete()
    status, output = run(b, capsys, "sync_purge", "--erase", "accounts", str(edited_at_both))
    assert status == 1
    assert "node0 may still have it" in output
    assert "still here" not in output
    push(b, a)
    status, output = run(b, capsys, "sync_purge", "--erase", "accounts", str(edited_at_both), "--json")
    assert status == 0
    assert json.loads(output)["kept_by"] == []


def test_deferred_entries_are_erased(a, b, capsys):
    with a.at_work():
        account = Account.objects.create(name="Ann Smith")
        Account.objects.filter(pk=account.pk).update(email="no address")
        account.refresh_from_db()
        account.save()
    push(a, b)
    with b.at_work():
        assert "Ann Smith" in DeferredEntry.objects.get().payload
    _status, output = run(b, capsys, "sync_purge", "--erase", "accounts", str(uuid_at(b)))
    assert "1 deferred entries" in output
    with b.at_work():
        assert not DeferredEntry.objects.exists()
        assert not TrackedResource.objects.get().is_deferred


@pytest.mark.parametrize(
    ("kind", "uuid", "said"),
    [
        ("nothings", "0" * 32, "There is no kind"),
        ("accounts", "x", "Expected a uuid"),
        ("accounts", "0" * 32, "does not know a resource"),
    ],
)
def test_what_is_not_there_is_refused(a, capsys, kind, uuid, said):
    with pytest.raises(CommandError, match=said):
        run(a, capsys, "sync_purge", "--erase", kind, uuid)


def test_old_conflicts_are_purged(b, edited_at_both, capsys):
    b.settings["KEEP_CONFLICTS_DAYS"] = 30
    with b.at_work():
        ConflictRecord.objects.update(decided_at=timezone.now() - timedelta(days=29))
    run(b, capsys, "sync_purge")
    with b.at_work():
        assert ConflictRecord.objects.exists()
        ConflictRecord.objects.update(decided_at=timezone.now() - timedelta(days=31))
    assert "1 conflicts older than 30 days removed" in run(b, capsys, "sync_purge")[1]
    with b.at_work():
        assert not ConflictRecord.objects.exists()
