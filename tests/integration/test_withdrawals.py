"""Withdrawing what a peer is not to have any more: it goes there, and nowhere else, whatever refers to it."""

from contextlib import closing

import pytest

import sdata_sync
from sdata_sync.conf import conf
from sdata_sync.delivery.audit import verify
from sdata_sync.delivery.client import PeerClient
from sdata_sync.models import ChildResource, DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, Contact, SalesOrder, SalesOrderLine

from ..many_nodes import LocalNode, wired
from ..shapes.models import Article, Author, Tag
from ..talk import level, push
from .test_related_edges import enforce_foreign_keys, of

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("withdrawals"),
]


class Nodes(list):
    """Three of them, and the wire between them."""


@pytest.fixture
def filtered(monkeypatch):
    """Accounts and contacts refer to each other; node1 may have those of the north."""

    def is_partial(peer):
        return conf.base_url.startswith("http://node0/") and (peer is None or peer.name == "node1")

    class SomeAccounts(sdata_sync.SyncResource):
        def queryset_for(self, peer):
            return Account.objects.filter(city="north") if is_partial(peer) else None

    class SomeContacts(sdata_sync.SyncResource):
        def queryset_for(self, peer):
            return (
                Contact.objects.filter(account__city="north").exclude(first_name="hidden") if is_partial(peer) else None
            )

    usual = {model: type(registry.of_model(model).declared) for model in (Account, Contact)}
    for model in usual:
        sdata_sync.unregister(model)
    nodes = Nodes(LocalNode(number) for number in range(3))
    with (
        wired(nodes, monkeypatch) as nodes.wire,
        sdata_sync.registered(Account, SomeAccounts),
        sdata_sync.registered(Contact, SomeContacts),
    ):
        for node in nodes:
            node.settings["PAGE_SIZE"], node.settings["MAX_PAGE_SIZE"] = 10, 50
            node.reset([other for other in nodes if other is not node])
        yield nodes
    for model, resource_class in usual.items():
        sdata_sync.register(model)(resource_class)


def contents(node, *, north=False):
    with node.at_work():
        accounts = Account.objects.filter(city="north") if north else Account.objects.all()
        contacts = Contact.objects.filter(account__city="north") if north else Contact.objects.all()
        return (
            sorted((a.name, a.city, a.phone, a.main_contact and a.main_contact.last_name) for a in accounts),
            sorted((c.last_name, c.first_name, c.account.name) for c in contacts),
        )


def rounds(office, part, *more, count=4):
    for _ in range(count):
        for here, there in ((office, part), (part, office), *more):
            push(here, there)


def test_an_account_that_leaves_takes_its_contacts_along_at_the_part_only(filtered):
    office, part, other = filtered
    enforce_foreign_keys(*filtered)
    with office.at_work():
        account = Account.objects.create(name="A", city="north")
        account.main_contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    rounds(office, part, (office, other))
    before = contents(office)
    assert contents(part) == before
    with office.at_work():
        account.city = "south"
        account.save()
    rounds(office, part, (office, other), (other, office))
    assert contents(part) == ([], [])
    assert contents(office) == contents(other) == ([("A", "south", "", "Doe")], [("Doe", "", "A")])
    with office.at_work():
        account.city = "north"
        account.save()
    rounds(office, part)
    assert contents(office) == contents(part) == ([("A", "north", "", "Doe")], [("Doe", "", "A")])


def test_a_contact_that_leaves_alone_stays_the_main_contact_of_its_account(filtered):
    """Referring rows wait for what they refer to: the account at the part waits, and nobody else loses anything."""
    office, part, other = filtered
    with office.at_work():
        account = Account.objects.create(name="A", city="north")
        account.main_contact = contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    rounds(office, part, (office, other))
    with office.at_work():
        contact.first_name = "hidden"
        contact.save()
    rounds(office, part, (office, other), (other, office))
    assert contents(office) == contents(other) == ([("A", "north", "", "Doe")], [("Doe", "hidden", "A")])
    assert contents(part) == ([("A", "north", "", None)], [])
    with part.at_work():
        account = Account.objects.get()
        account.phone = "1"
        account.save()
    rounds(office, part, (office, other), (other, office))
    assert contents(office) == contents(other) == ([("A", "north", "1", "Doe")], [("Doe", "hidden", "A")])
    with office.at_work():
        contact.first_name = ""
        contact.save()
    rounds(office, part, (office, other), (other, office))
    assert contents(office) == contents(other) == contents(part) == ([("A", "north", "1", "Doe")], [("Doe", "", "A")])
    assert level(office, other)


def test_a_tag_that_leaves_stays_on_its_articles(nodes):

    office, part, _ = nodes

    class SomeTags(sdata_sync.SyncResource):
        def queryset_for(self, peer):
            if conf.base_url.startswith("http://node0/") and (peer is None or peer.name == "node1"):
                return Tag.objects.exclude(name="secret")
            return None

    sdata_sync.unregister(Tag)
    sdata_sync.register(Tag)(SomeTags)
    try:
        with office.at_work():
            tags = [Tag.objects.create(name=name) for name in ("red", "green")]
            article = Article.objects.create(title="x", about=tags[0])
            article.tags.set(tags)
        rounds(office, part)
        with office.at_work():
            Tag.objects.filter(name="red").get()
            tags[0].name = "secret"
            tags[0].save()
        rounds(office, part)
        with office.at_work():
            assert sorted(tag.name for tag in Article.objects.get().tags.all()) == ["green", "secret"]
            assert Article.objects.get().about == tags[0]
        with part.at_work():
            assert [tag.name for tag in Article.objects.get().tags.all()] == ["green"]
        with office.at_work():
            tags[0].name = "red"
            tags[0].save()
        rounds(office, part)
        with part.at_work():
            assert sorted(tag.name for tag in Article.objects.get().tags.all()) == ["green", "red"]
            assert Article.objects.get().about.name == "red"
    finally:
        sdata_sync.unregister(Tag)
        sdata_sync.register(Tag)(sdata_sync.SyncResource)


def test_what_the_part_made_of_what_is_withdrawn(filtered):
    """A contact of an account that leaves, and that nobody has heard of yet."""
    office, part, _ = filtered
    with office.at_work():
        account = Account.objects.create(name="A", city="north")
    rounds(office, part)
    with part.at_work():
        Contact.objects.create(account=Account.objects.get(), last_name="new")
    with office.at_work():
        account.city = "south"
        account.save()
    push(office, part)
    rounds(part, office)
    assert contents(part) == ([], [])
    # The part may not refer to an account outside it. The contact is kept, for the office to decide.
    assert contents(office) == ([("A", "south", "", None)], [])
    with office.at_work():
        entry = DeferredEntry.objects.get()
        assert (entry.application_code, entry.is_aside) == ("OutOfPart", True)
        assert "new" in entry.payload
    with part.at_work():
        assert not DeferredEntry.objects.exists()


@pytest.mark.parametrize("priorities", [(5, 5, 5), (3, 5, 5)])
@pytest.mark.parametrize("is_first", ["office", "part"])
def test_a_withdrawal_against_an_edit(filtered, priorities, is_first):
    """The part edits what is about to leave it. Whoever wins, nobody has deleted anything."""
    office, part, other = filtered
    for node, priority in zip(filtered, priorities, strict=True):
        node.settings["CONFLICT_PRIORITY"] = priority
    with office.at_work():
        account = Account.objects.create(name="A", city="north")
        account.main_contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    rounds(office, part, (office, other))

    def leave():
        with office.at_work():
            Account.objects.update(city="south")
            scan(of("accounts"))

    def edit():
        with part.at_work():
            row = Account.objects.get()
            row.phone = "1"
            row.save()

    for act in (leave, edit) if is_first == "office" else (edit, leave):
        act()
    push(office, part)
    rounds(part, office, (office, other), (other, office))
    assert [city for _, city, *_ in contents(office)[0]] in (["south"], ["north"])
    assert len(contents(office)[1]) == 1
    assert contents(other) == contents(office)
    assert contents(part) == contents(office, north=True)


@pytest.fixture
def order(b):
    """An order at ``b``, and an article of an author, all of them numbered."""
    with b.at_work():
        account = Account.objects.create(name="ACME")
        order = SalesOrder.objects.create(account=account, order_number="1", order_date="2026-01-01")
        author = Author.objects.create(name="Ann")
        Article.objects.create(title="1", author=author)
        for resource in ("accounts", "salesOrders", "authors", "articles"):
            assign_ticks(of(resource))
    return order


def lead_to_what_nobody_told_of(node, order, what):
    with node.at_work():
        if what == "children":
            SalesOrderLine.objects.bulk_create([SalesOrderLine(order=order, line_number=1)])
        else:
            [author] = Author.objects.bulk_create([Author(name="untold")])
            Article.objects.update(author=author)


def everything(node):
    with node.at_work():
        return (
            sorted(ChildResource.objects.values_list("kind", "local_key")),
            sorted(TrackedResource.objects.values_list("kind", "local_key", "mark", "tick", "etag")),
        )


@pytest.mark.parametrize("what", ["children", "referred"])
def test_a_dry_run_only_looks(b, order, what):
    lead_to_what_nobody_told_of(b, order, what)
    before = everything(b)
    with b.at_work():
        found = {kind: scan(of(kind), dry_run=True) for kind in ("articles", "salesOrders", "authors")}
    assert everything(b) == before
    with b.at_work():
        again = {kind: scan(of(kind), dry_run=True) for kind in ("articles", "salesOrders", "authors")}
        assert found == again
        for kind in ("authors", "articles", "salesOrders"):
            assert scan(of(kind)).total == found[kind].total, kind


@pytest.mark.parametrize("what", ["children", "referred"])
def test_verify_only_looks(a, b, order, what):
    push(b, a)
    lead_to_what_nobody_told_of(b, order, what)
    before = everything(b)
    with b.at_work():
        peer = Peer.objects.get(name=a.alias)
        with closing(PeerClient(peer.url, conf.credentials(peer.credentials))) as client:
            for kind in ("articles", "salesOrders"):
                verify(client, peer, of(kind), repair=False)
    assert everything(b) == before
