"""What the README promises. A test in ``tests/test_house.py`` compares the names with the sentences."""

import json

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connections, models
from django.test import Client

import sdata_sync
from sdata_sync.delivery.recover import ask_peers
from sdata_sync.models import ConflictRecord, DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.scan import scan
from testproject.crm.models import Account

from ..many_nodes import two_nodes
from ..shapes.models import EveryField, Zone
from ..talk import level, pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("promises in one process"),
]
PATH = "/sdata/myApp2/myContract/-"


@pytest.fixture
def nodes(monkeypatch):
    with two_nodes(monkeypatch, Zone, EveryField) as nodes:
        yield nodes


def exchange(a, b):
    for _ in range(2):
        push(a, b)
        push(b, a)


def columns(node, model):
    fields = [field.column for field in model._meta.concrete_fields if not isinstance(field, models.AutoField)]
    with connections[node.alias].cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(map(connections[node.alias].ops.quote_name, fields))} FROM {model._meta.db_table}"
        )
        return sorted(cursor.fetchall(), key=repr)


def outcome(node, *command):
    """Run a command at ``node``; return its exit status."""
    with node.at_work():
        try:
            call_command(*command)
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def test_nodes_that_are_in_sync_have_equal_columns(a, b):
    with a.at_work():
        Zone.objects.create(code="north", label="North")
        Account.objects.create(name="Natural Goods", credit_limit="12.50", notes="<&> \r\n")
    with b.at_work():
        Account.objects.create(name="Other", is_active=False)
        Account.objects.bulk_create([Account(name="Past the signals")])
        for kind in registry:
            scan(kind)
    exchange(a, b)
    assert outcome(a, "sync_status") == outcome(b, "sync_status") == 0
    assert outcome(a, "sync_verify") == 0
    for model in (Zone, Account):
        assert columns(a, model) == columns(b, model)
        assert columns(a, model)


def test_nobody_is_told_in_sync_while_an_entry_waits(a, b, capsys):
    with a.at_work():
        Account.objects.create(name="Refused there")
        Account.objects.update(email="no address")  # the resource of the accounts validates
        scan(registry.of_model(Account))
    for node, command in (
        (a, "sync_catchup"),
        (a, "sync_status"),
        (a, "sync_verify"),
        (b, "sync_status"),
        (b, "sync_catchup"),
    ):
        capsys.readouterr()
        assert outcome(node, command) == 1, (node.alias, command)


def test_concurrent_edits_are_decided_alike_at_every_node(a, b):
    with a.at_work():
        Zone.objects.create(code="north")
    exchange(a, b)
    for node in (a, b):
        with node.at_work():
            zone = Zone.objects.get()
            zone.label = f"of {node.alias}"
            zone.save()
    exchange(a, b)
    assert columns(a, Zone) == columns(b, Zone)
    assert level(a, b)


def test_the_version_that_loses_a_conflict_is_kept(a, b):
    test_concurrent_edits_are_decided_alike_at_every_node(a, b)
    kept = []
    for node in (a, b):
        with node.at_work():
            kept += [record.losing_payload for record in ConflictRecord.objects.all()]
            [label] = Zone.objects.values_list("label", flat=True)
    loser = {"of node0": "of node1", "of node1": "of node0"}[label]
    assert any(loser in payload for payload in kept)


def test_one_bad_row_holds_up_no_other_row(a, b):
    with a.at_work():
        for number in range(30):
            Account.objects.create(name=f"Good {number}")
        bad = Account.objects.create(name="Bad")
        Account.objects.filter(pk=bad.pk).update(email="no address")
        unsendable = Account.objects.create(name="Unsendable")
        Account.objects.filter(pk=unsendable.pk).update(notes="\x07")
        scan(registry.of_model(Account))
    exchange(a, b)
    with b.at_work():
        assert Account.objects.count() == 30
        assert [entry.resource.kind for entry in DeferredEntry.objects.all()] == ["accounts"]
    with a.at_work():
        assert "U+0007" in TrackedResource.objects.exclude(problem="").get().problem


def test_a_deleted_row_does_not_come_back(a, b):
    with a.at_work():
        Zone.objects.create(code="north")
        Account.objects.create(name="Gone")
    exchange(a, b)
    with b.at_work():
        Zone.objects.get().delete()
        Account.objects.get().delete()
    exchange(a, b)
    for node in (a, b):
        with node.at_work():
            for kind in registry:
                scan(kind)
    exchange(a, b)
    for node in (a, b):
        assert columns(node, Zone) == columns(node, Account) == []
    assert level(a, b)


def test_a_received_change_is_no_change_of_the_node_that_receives_it(a, b):
    with a.at_work():
        Zone.objects.create(code="north")
    push(a, b)
    with b.at_work():
        kind = registry.of_model(Zone)
        assert not TrackedResource.objects.exclude(mark=None).exists()
        assert scan(kind).total == 0
        assert load_digest(kind).value.tick(kind.endpoint) == 1
        [tracked] = TrackedResource.objects.filter(kind="zones")
        assert tracked.endpoint.url == f"{a.base_url}/zones"


def test_a_restored_node_gets_its_lost_changes_back(a, b):
    with a.at_work():
        Zone.objects.create(code="kept")
    exchange(a, b)
    backup = connections[a.alias].connection.serialize() if connections[a.alias].vendor == "sqlite" else None
    if backup is None:
        pytest.skip("restores a database in memory")
    with a.at_work():
        Zone.objects.create(code="lost")
    exchange(a, b)
    connections[a.alias].connection.deserialize(backup)
    a.settings["ASK_PEERS_FIRST"] = True
    with a.at_work():
        assert not Zone.objects.filter(code="lost").exists()
        assert ask_peers(registry.of_model(Zone))
        assert Zone.objects.filter(code="lost").exists()
        Zone.objects.create(code="new")
    exchange(a, b)
    assert columns(a, Zone) == columns(b, Zone)
    assert len(columns(b, Zone)) == 3


def test_a_peer_gets_only_the_rows_of_its_part(a, b):
    class PartSync(sdata_sync.SyncResource):
        def queryset_for(self, peer):
            return Zone.objects.filter(label="shared")

    sdata_sync.unregister(Zone)
    try:
        with sdata_sync.registered(Zone, PartSync):
            with a.at_work():
                Peer.objects.update(user=User.objects.get(username=b.alias))
                Zone.objects.create(code="north", label="shared")
                Zone.objects.create(code="south", label="private")
            push(a, b)
            pull(b, a)
            assert [row[0] for row in columns(b, Zone)] == ["north"]
    finally:
        sdata_sync.register(Zone)(sdata_sync.SyncResource)


@pytest.mark.parametrize(
    ("method", "url", "permission"),
    [
        ("get", "zones/$syncDigest", "read_feeds"),
        ("post", "zones/$syncSource", "read_feeds"),
        ("get", "zones", "read_feeds"),
        ("get", "zones('north')", "read_feeds"),
        ("get", "$schema", "read_feeds"),
        ("get", "zones/$linked", "read_feeds"),
        ("post", "zones/$syncTarget", "push_feeds"),
        ("post", "zones/$syncResults", "push_feeds"),
        ("put", "zones/$syncDigest", "set_digest"),
        ("post", "zones/$linked", "link_resources"),
    ],
)
def test_nothing_is_read_or_written_without_a_login_and_its_permission(a, method, url, permission):
    client = Client()
    with a.at_work():
        Zone.objects.create(code="north")
        assert getattr(client, method)(f"{PATH}/{url}").status_code == 401
        user = User.objects.create(username="somebody")
        user.user_permissions.set(Permission.objects.filter(codename__endswith="_zone"))
        client.force_login(user)
        assert getattr(client, method)(f"{PATH}/{url}").status_code == 403
        user.user_permissions.set(Permission.objects.filter(codename=permission))
        assert getattr(client, method)(f"{PATH}/{url}").status_code not in (401, 403)


def test_secrets_are_not_in_the_database(a, b):
    with a.at_work():
        Zone.objects.create(code="north")
    exchange(a, b)
    with connections[a.alias].cursor() as cursor:
        for table in connections[a.alias].introspection.table_names(cursor):
            if not table.startswith(("auth", "django_")):  # the logins of the others are kept by Django
                cursor.execute(f"SELECT * FROM {table}")
                assert a.token not in json.dumps(cursor.fetchall(), default=str), table
