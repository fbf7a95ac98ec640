"""Peers that may have only a part of a kind."""

import pytest

import sdata_sync
from sdata_sync.conf import conf
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import ConflictRecord, DeferredEntry, Digest, Peer, ScopedResource, Stream
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from testproject.crm.models import Account

from ..many_nodes import LocalNode, wired
from ..talk import pull, push, talk

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("filters"),
]

#: What the peers of the head office may have, by their names.
REGIONS = {}


class RegionalAccounts(sdata_sync.SyncResource):
    validate = True
    may_move = True

    def queryset_for(self, peer):
        if not conf.base_url.startswith("http://node0/"):
            return None  # only the head office chooses
        if peer is None:
            return Account.objects.none()
        region = REGIONS.get(peer.name)
        return None if region is None else Account.objects.filter(city__in=region)


@pytest.fixture
def nodes(monkeypatch):
    nodes = [LocalNode(number) for number in range(3)]
    REGIONS.clear()
    REGIONS["node1"] = ["north"]
    [usual] = [type(registry.of_kind("accounts").declared)]
    sdata_sync.unregister(Account)
    try:
        with wired(nodes, monkeypatch), sdata_sync.registered(Account, RegionalAccounts):
            for node in nodes:
                node.settings["PAGE_SIZE"], node.settings["MAX_PAGE_SIZE"] = 10, 50
                node.reset([other for other in nodes if other is not node])
            yield nodes
    finally:
        sdata_sync.register(Account)(usual)


@pytest.fixture
def office(nodes):
    with nodes[0].at_work():
        Account.objects.create(name="Anne", city="north")
        Account.objects.create(name="Bert", city="south")
    return nodes[0]


@pytest.fixture
def north(nodes):
    return nodes[1]


@pytest.fixture
def other(nodes):
    return nodes[2]


def accounts(node):
    with node.at_work():
        return sorted((account.name, account.city) for account in Account.objects.all())


def edit(node, name, **values):
    with node.at_work():
        account = Account.objects.get(name=name)
        for field, value in values.items():
            setattr(account, field, value)
        account.save()


@pytest.mark.parametrize("how", ["push", "pull"])
def test_it_gets_its_part(office, north, other, how):
    exchange = (lambda: push(office, north)) if how == "push" else (lambda: pull(north, office))
    exchange()
    assert accounts(north) == [("Anne", "north")]
    with office.at_work():
        Account.objects.create(name="Carl", city="south")
        Account.objects.create(name="Dora", city="north")
    exchange()
    assert accounts(north) == [("Anne", "north"), ("Dora", "north")]
    push(office, other)
    assert len(accounts(other)) == 4


@pytest.mark.parametrize("how", ["push", "pull"])
def test_what_leaves_it_is_withdrawn_and_comes_back(office, north, other, how):
    exchange = (lambda: push(office, north)) if how == "push" else (lambda: pull(north, office))
    exchange()
    push(office, other)
    edit(office, "Anne", city="south")
    edit(office, "Bert", city="north")
    exchange()
    push(office, other)
    assert accounts(north) == [("Bert", "north")]
    assert accounts(office) == accounts(other) == [("Anne", "south"), ("Bert", "north")]
    edit(office, "Anne", city="north")
    exchange()
    assert accounts(north) == [("Anne", "north"), ("Bert", "north")]


def test_although_its_own_state_did_not_change(office, north, other):
    push(office, north)
    push(office, other)
    REGIONS["node1"] = ["south"]
    push(office, north)
    assert accounts(north) == [("Bert", "south")]
    REGIONS["node1"] = ["north", "south"]
    push(office, north)
    assert accounts(north) == [("Anne", "north"), ("Bert", "south")]
    push(office, other)
    assert accounts(other) == accounts(office) == [("Anne", "north"), ("Bert", "south")]
    with office.at_work():
        assert not ConflictRecord.objects.exists()


def test_the_heartbeat_notices(office, north):
    push(office, north)
    REGIONS["node1"] = ["south"]
    with office.at_work(), PeerSession(Peer.objects.get(name="node1")) as session:
        Stream.objects.update(compared_at=0)
        session.compare_and_pull(registry.of_kind("accounts"))
        assert session.deliver([registry.of_kind("accounts")]) is None
    assert accounts(north) == [("Bert", "south")]


def test_what_it_changes_is_everybodys(office, north, other):
    push(office, north)
    push(office, other)
    edit(north, "Anne", phone="1", city="north")
    with north.at_work():
        Account.objects.create(name="Nora", city="north")
    push(north, office)
    push(office, other)
    assert accounts(other) == accounts(office) == [("Anne", "north"), ("Bert", "south"), ("Nora", "north")]
    edit(north, "Nora", city="south")  # moves it out of its own sight
    push(north, office)
    push(office, north)
    assert accounts(north) == [("Anne", "north")]
    assert ("Nora", "south") in accounts(office)
    with north.at_work():
        Account.objects.get(name="Anne").delete()
    push(north, office)
    assert accounts(office) == [("Bert", "south"), ("Nora", "south")]


def test_an_edit_of_what_is_being_withdrawn_is_not_lost(office, north):
    push(office, north)
    edit(north, "Anne", phone="0815")
    REGIONS["node1"] = []
    push(office, north)
    push(north, office)
    push(office, north)
    assert accounts(north) == []
    with office.at_work():
        # The row is not in its part any more. The edit is kept for the office to decide, and is not written.
        assert Account.objects.get(name="Anne").phone == ""
        assert "0815" in DeferredEntry.objects.get(application_code="OutOfPart").payload


def test_a_deletion_reaches_only_those_who_had_it(office, north):
    push(office, north)
    with office.at_work():
        Account.objects.all().delete()
    assert push(office, north)["accounts"].entries == 1
    assert accounts(north) == []


def test_a_part_is_exchanged_with_nobody_else(office, north, other):
    """A third node would believe that it had rows it never saw."""
    push(office, north)
    with north.at_work():
        assert Digest.objects.get(pk="accounts").part_of == f"{office.base_url}/accounts"
        assert load_digest(registry.of_kind("accounts")).value.part_of
    for here, there, direction in (
        (north, other, "push"),
        (north, other, "pull"),
        (other, north, "push"),
        (other, north, "pull"),
    ):
        with pytest.raises(AssertionError, match="a partial replica"):
            talk(here, there, [direction], ["accounts"])
    assert accounts(other) == []
    edit(north, "Anne", phone="1")
    with north.at_work(), PeerSession(Peer.objects.get(name="node2")) as session:
        assert session.deliver([registry.of_kind("accounts")]) is not None
        assert "a partial replica" in Stream.objects.get(peer__name="node2", kind="accounts").last_error


def test_it_is_let_in(office, north, other):
    push(office, north)
    del REGIONS["node1"]
    push(office, north)
    push(office, north)
    assert accounts(north) == accounts(office)
    with office.at_work():
        assert not ScopedResource.objects.exists()
    with north.at_work():
        assert not load_digest(registry.of_kind("accounts")).value.part_of
    push(north, other)
    assert accounts(other) == accounts(office)


def test_strangers_are_asked_for_with_none(office, north):
    with office.at_work():
        Peer.objects.filter(name="node1").update(user=None)
    pull(north, office)
    assert accounts(north) == []


def test_reading_and_links_keep_to_it(office, north):
    from django.test import Client

    push(office, north)
    client = Client(headers={"authorization": f"Token {north.token}"})
    path = "/sdata/myApp2/myContract/-/accounts"
    with office.at_work():
        anne, bert = Account.objects.order_by("name")
        assert b"Anne" in client.get(path).content
        assert b"Bert" not in client.get(path).content
        assert client.get(f"{path}('{anne.pk}')").status_code == 200
        assert client.get(f"{path}('{bert.pk}')").status_code == 404
        assert b"Bert" not in client.get(f"{path}/$linked").content
