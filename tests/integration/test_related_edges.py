"""The edges of references, children and linking: what was lost, stuck or blocked once, each in a history of its own."""

import time
from io import BytesIO
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db import connections, models, transaction
from django.test import Client
from django.utils import timezone

import sdata_sync
from sdata_sync.api.views.schema import render_schema
from sdata_sync.checks import check_resources
from sdata_sync.delivery.match import link_pairs
from sdata_sync.managers import SyncQuerySet
from sdata_sync.models import ConflictRecord, DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.apply.conflicts import use_other_version
from sdata_sync.sync.apply.receive import receive_feed
from sdata_sync.sync.identity.link import relink
from sdata_sync.sync.log.digests import lock_digest
from sdata_sync.sync.operations import select_now, source_feed
from sdata_sync.sync.runs import RunLabel
from sdata_sync.sync.stamp.purge import purge
from sdata_sync.sync.stamp.scan import scan
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, Contact, SalesOrder, SalesOrderLine

from ..databases import declared
from ..seams import ENGINE
from ..shapes.models import (
    Article,
    Author,
    Country,
    Coupon,
    FavouritePlace,
    Friend,
    Part,
    Place,
    Profile,
    Stub,
    Tag,
    Ticket,
    Zone,
)
from ..talk import level, pull, push
from ..wire import LATER, digest_xml, entry_xml, feed_xml

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("related_edges"),
]
X = "http://x/sdata/a/b/-/"  # a stranger's dataset


def of(kind):
    return registry.of_kind(kind)


def exchange(*nodes, rounds=3):
    for _ in range(rounds):
        for here in nodes:
            for there in nodes:
                if here is not there:
                    push(here, there)


def uuid_of(node, kind, **which):
    with node.at_work():
        assign_ticks(of(kind))
        row = of(kind).model.objects.get(**which)
        return TrackedResource.objects.get(kind=kind, local_key=str(row.pk)).uuid


def rendered(here, there, kind):
    """The feed with all that there lacks, as of now; it arrives later."""
    with there.at_work():
        target = assign_ticks(of(kind)).value
    with here.at_work():
        operation = select_now(of(kind), target, ENGINE, run=RunLabel(name="", stamp=""))
        return source_feed(of(kind), operation).page(place=None, start_index=1, count=100).content


def arrive(node, kind, feed):
    with node.at_work():
        return receive_feed(of(kind), BytesIO(feed), ENGINE)


def strange(node, kind, *entries):
    """A feed of a stranger who knows all that the node knows."""
    with node.at_work():
        known = [(e.endpoint, e.tick) for e in assign_ticks(of(kind)).value]
    digest = digest_xml(*known, (X + kind, 50), origin=X + kind)
    return arrive(node, kind, feed_xml(digest, *entries, mode="catchUp").encode())


def alias(uuid, replaced_by, kind, element):
    dss = f'xmlns:dss="urn:django-sdata-sync" dss:replacedBy="{replaced_by}" sdata:isDeleted'
    return entry_xml(uuid, X + kind, 7, deleted=True, element=element, stamp=LATER).replace("sdata:isDeleted", dss)


def put_link(node, kind, uuid, **which):
    """What PUT $linked('uuid') does."""
    with node.at_work():
        with transaction.atomic(using=node.alias):
            lock_digest(of(kind))
            relink(of(kind), uuid, str(of(kind).model.objects.get(**which).pk))
        assign_ticks(of(kind))


def enforce_foreign_keys(*nodes):
    """LocalNode.reset() has switched them off for good."""
    for node in nodes:
        connections[node.alias].cursor().execute("PRAGMA foreign_keys = ON")


def two_orders(node):
    with node.at_work():
        account = Account.objects.create(name="ACME")
        one, _ = (SalesOrder.objects.create(account=account, order_number=n, order_date="2026-01-01") for n in "12")
        one.lines.create(line_number=1, description="L")


def lines(node):
    with node.at_work():
        return sorted((line.order.order_number[:1], line.description) for line in SalesOrderLine.objects.all())


@pytest.fixture
def linked():
    """Register another resource class for a model, for one test."""
    usual = {}

    def register(model, resource_class):
        usual[model] = type(registry.of_model(model).declared)
        sdata_sync.unregister(model)
        sdata_sync.register(model)(resource_class)

    yield register
    for model, resource_class in usual.items():
        sdata_sync.unregister(model)
        sdata_sync.register(model)(resource_class)


def sync_link(here, there, kind, *, ours_win=False, **which):
    theirs = uuid_of(there, kind, **which)
    with here.at_work():
        assign_ticks(of(kind))
        mine = str(of(kind).model.objects.get(**which).pk)
        assert link_pairs(of(kind), Peer.objects.get(name=there.alias), [(mine, theirs)], ours_win=ours_win).linked == 1


# A: data lost, nodes that differ for good


def test_A1_what_waits_is_lost_by_a_union(a, b, linked):
    class LinkedAccounts(sdata_sync.SyncResource):
        def find_duplicate(self, instance):
            return Account.objects.filter(email=instance.email).first()

    linked(Account, LinkedAccounts)
    with b.at_work():
        Account.objects.create(name="B", email="e@x.de")
        assign_ticks(of("accounts"))
    with a.at_work():
        account = Account.objects.create(name="A", email="e@x.de")
        account.main_contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    push(a, b)
    exchange(a, b)
    for node in (a, b):
        with node.at_work():
            assert Account.objects.get().main_contact is not None, node.alias


def test_A2_what_waits_is_lost_by_a_merge(a, b, linked):
    class Merging(sdata_sync.SyncResource):
        def resolve(self, conflict):
            return {"city": "merged"}

    linked(Account, Merging)
    with a.at_work():
        account = Account.objects.create(name="ACME")
        account.main_contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    push(a, b, ["accounts"])
    with b.at_work():
        row = Account.objects.get()
        row.phone = "1"
        row.save()
    with a.at_work():
        account.notes = "x"
        account.save()
    push(a, b)
    exchange(a, b)
    for node in (a, b):
        with node.at_work():
            assert Account.objects.get().main_contact is not None, node.alias


def test_A3_what_waits_is_lost_by_a_payload_that_does_not_mention_it(a, b):
    with a.at_work():
        account = Account.objects.create(name="ACME")
        account.main_contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    push(a, b, ["accounts"])
    uuid = uuid_of(b, "accounts")
    strange(b, "accounts", entry_xml(uuid, X + "accounts", 5, "<name>by an older node</name>", stamp=LATER))
    push(a, b, ["contacts"])
    with b.at_work():
        assert Account.objects.get().name == "by an older node"
        assert Account.objects.get().main_contact is not None


def test_A4_a_line_in_two_orders(a, b):
    """Moved at one node while the order that it left is edited at the other; the feeds cross."""
    two_orders(a)
    push(a, b)
    with a.at_work():
        line = SalesOrderLine.objects.get()
        line.order = SalesOrder.objects.get(order_number="2")
        line.save()
    with b.at_work():
        order = SalesOrder.objects.get(order_number="1")
        order.order_number = "1 edited"
        order.save()
    to_b, to_a = rendered(a, b, "salesOrders"), rendered(b, a, "salesOrders")
    arrive(a, "salesOrders", to_a)
    arrive(b, "salesOrders", to_b)
    exchange(a, b)
    assert lines(a) == lines(b)


def test_A5_a_child_moved_by_bulk_update(a, b):
    two_orders(a)
    push(a, b)
    with a.at_work():
        line = SalesOrderLine.objects.get()
        line.order = SalesOrder.objects.get(order_number="2")
        SyncQuerySet(SalesOrderLine, using=a.alias).bulk_update([line], ["order"])
    exchange(a, b)
    assert lines(a) == lines(b) == [("2", "L")]


@pytest.mark.parametrize("how", ["replaced", "swapped"])
def test_A6_unique_values_among_children(a, b, how):
    two_orders(a)
    with a.at_work():
        SalesOrder.objects.get(order_number="1").lines.create(line_number=2, description="M")
    push(a, b)
    for node in (a, b):
        connections[node.alias].cursor().execute("CREATE UNIQUE INDEX x ON crm_salesorderline(order_id, line_number)")
    try:
        with a.at_work():
            first, second = SalesOrderLine.objects.order_by("line_number")
            if how == "replaced":
                first.order.lines.create(line_number=9, description="new")
                first.delete()
                SalesOrderLine.objects.filter(line_number=9).update(line_number=1)
            else:
                SalesOrderLine.objects.filter(pk=first.pk).update(line_number=9)
                SalesOrderLine.objects.filter(pk=second.pk).update(line_number=1)
                SalesOrderLine.objects.filter(pk=first.pk).update(line_number=2)
            scan(of("salesOrders"))
        exchange(a, b)
        assert lines(a) == lines(b)
        assert level(a, b)
    finally:
        for node in (a, b):
            connections[node.alias].cursor().execute("DROP INDEX x")


def test_A7_members_are_lost_when_rows_become_one(nodes, a, b):
    c = nodes[2]
    for node in (a, b):
        with node.at_work():
            Tag.objects.create(name="red")
        push(node, c)
    with c.at_work():
        mine, other = Tag.objects.order_by("pk")
        Article.objects.create(title="both").tags.set([mine, other])
        Article.objects.create(title="one").tags.set([mine])
        Article.objects.create(title="about", about=mine)
    sync_link(a, b, "tags")
    pull(a, b)
    push(a, c)
    with c.at_work():
        tag = Tag.objects.get()
        found = {article.title: article.tags.count() for article in Article.objects.all()}
        about = Article.objects.get(title="about").about
    assert (found, about) == ({"both": 1, "one": 1, "about": 0}, tag)


def test_A8_children_when_rows_become_one(nodes, a, b):
    c = nodes[2]
    for node in (a, b):
        with node.at_work():
            account = Account.objects.create(name=node.alias)
            order = SalesOrder.objects.create(account=account, order_number="1", order_date="2026-01-01")
            order.lines.create(line_number=1, description=f"of {node.alias}")
        push(node, c)
    sync_link(a, b, "salesOrders")
    pull(a, b)
    push(a, b)
    push(a, c)
    push(b, c)
    assert lines(a) == lines(b) == lines(c)


def test_A9_a_one_to_one_key_when_rows_become_one(nodes, a, b):
    c = nodes[2]
    with a.at_work():
        Profile.objects.create(author=Author.objects.create(name="Ann"), text="writes")
    with b.at_work():
        Author.objects.create(name="Zoe")
        Author.objects.create(name="Ann")
    push(b, c)
    push(a, c)
    push(c, b)  # and has tracked what it had
    with c.at_work():
        profile = Profile.objects.get()
        other = Author.objects.filter(name="Ann").exclude(pk=profile.author_id).get()
        old = TrackedResource.objects.get(kind="authors", local_key=str(profile.author_id)).uuid
        new = TrackedResource.objects.get(kind="authors", local_key=str(other.pk)).uuid
    strange(c, "authors", alias(old, new, "authors", "author"))
    exchange(c, b)
    for node in (c, b):
        with node.at_work():
            tracked = TrackedResource.objects.filter(kind="profiles", local_key=str(Profile.objects.get().pk))
            assert tracked.exists(), "its deletion was sent to everybody; the row is there, and nobody knows it"


def test_A10_the_other_name_of_what_was_deleted(nodes, a, b):
    c = nodes[2]
    with a.at_work():
        Tag.objects.create(name="red")
    push(a, b)
    push(a, c)
    with c.at_work():
        tag = Tag.objects.get()
        tag.name = "edited at c"
        tag.save()
        assign_ticks(of("tags"))
    put_link(a, "tags", uuid4())
    push(a, b)
    with a.at_work():
        Tag.objects.get().delete()
    push(a, b)
    feeds = [(c, rendered(a, c, "tags")), (b, rendered(c, b, "tags")), (a, rendered(c, a, "tags"))]
    for node, feed in feeds:
        arrive(node, "tags", feed)
    exchange(a, b, c)
    found = []
    for node in (a, b, c):
        with node.at_work():
            found.append(list(Tag.objects.values_list("name", flat=True)))
    assert found[0] == found[1] == found[2]


def test_A11_theirs_was_to_win(a, b):
    """sync_link of rows whose version waits here because of the very value they share."""
    with sdata_sync.registered(Coupon):
        for node, value in ((a, 1), (b, 2)):
            with node.at_work():
                Coupon.objects.create(code="TEN", value=value)
        exchange(a, b, rounds=1)
        sync_link(a, b, "coupons", code="TEN")
        pull(a, b)
        exchange(a, b)
        for node in (a, b):
            with node.at_work():
                assert Coupon.objects.get().value == 2, node.alias


def test_A12_theirs_was_to_win_and_a_scan_came_between(a, b):
    with b.at_work():
        Author.objects.create(name="theirs")
    theirs = uuid_of(b, "authors")
    with a.at_work():
        mine = Author.objects.create(name="ours")
        assign_ticks(of("authors"))
        link_pairs(of("authors"), Peer.objects.get(name=b.alias), [(str(mine.pk), theirs)], ours_win=False)
        scan(of("authors"))
    pull(a, b)
    push(a, b)
    with a.at_work():
        assert Author.objects.get().name == "theirs"


def test_A13_a_new_name_of_what_it_leads_to_overrules_a_version_that_waits(a, b):
    b.settings["CONFLICT_PRIORITY"] = 1
    with a.at_work():
        article = Article.objects.create(title="1", author=Author.objects.create(name="Ann"))
    push(a, b)
    with a.at_work():
        article.title, article.country = "2", Country.objects.create(code="IT")
        article.save()
    push(a, b)
    put_link(b, "authors", uuid4())
    exchange(a, b)
    with a.at_work():
        assert Article.objects.get().title == "2"


class Older(sdata_sync.SyncResource):
    fields = ["name", "email", "city", "country", "credit_limit", "is_active"]


def upgraded_and_edited(a, b, linked):
    with a.at_work():
        Account.objects.create(name="ACME", phone="old")
    feed, usual = rendered(a, b, "accounts"), type(of("accounts").declared)
    linked(Account, Older)
    arrive(b, "accounts", feed)
    sdata_sync.unregister(Account)
    sdata_sync.register(Account)(usual)  # b is upgraded: it has phones now
    with b.at_work():
        row = Account.objects.get()
        row.phone = "new"
        row.save()


def test_A14_an_edit_after_an_upgrade_is_overwritten(a, b, linked):
    upgraded_and_edited(a, b, linked)
    with b.at_work():
        scan(of("accounts"))
        assert Account.objects.get().phone == "new"


def test_A15_an_edit_after_an_upgrade_is_sent_twice(a, b, linked):
    upgraded_and_edited(a, b, linked)
    arrive(a, "accounts", rendered(b, a, "accounts"))
    with a.at_work():
        assert Account.objects.get().phone == "new"


def test_A16_children_by_another_column_than_the_key(a, b):
    class StubSync(sdata_sync.SyncResource):
        model = Stub

    class TicketSync(sdata_sync.SyncResource):
        children = {"stubs": StubSync}

    with sdata_sync.registered(Ticket, TicketSync):
        with a.at_work():
            Ticket.objects.create(code="T").stubs.create()
        push(a, b)
        with b.at_work():
            assert Stub.objects.count() == 1


class FriendSync(sdata_sync.SyncResource):
    fields = ["name", "friends"]


class GroupSync(sdata_sync.SyncResource):
    fields = ["name", "permissions"]


def pairs(node):
    with node.at_work():
        found = Friend.friends.through.objects.values_list("from_friend__name", "to_friend__name")
        return sorted(found)


def test_A17_a_symmetrical_association(a, b, nodes):
    """A pair is in the text of one of its rows, so that a change of either is one change, and none undoes the other."""

    def friends(*pairs_of_names):
        return sorted((one, other) for pair in pairs_of_names for one, other in (pair, pair[::-1]))

    c = nodes[2]
    with sdata_sync.registered(Friend, FriendSync):
        with a.at_work():
            x, y, z = (Friend.objects.create(name=name) for name in "xyz")
            x.friends.add(y, z)
        exchange(a, b, c)
        for node in (a, b, c):
            assert pairs(node) == friends("xy", "xz")
        with b.at_work():
            Friend.objects.get(name="y").friends.add(Friend.objects.get(name="z"))
        with c.at_work():
            Friend.objects.get(name="z").friends.remove(Friend.objects.get(name="x"))
        exchange(a, b, c)
        for node in (a, b, c):
            assert pairs(node) == friends("xy", "yz")
        assert level(a, b, c)
        with c.at_work():
            Friend.objects.get(name="y").friends.clear()
            w = Friend.objects.create(name="w")
            w.friends.set(Friend.objects.filter(name__in="xz"))
        exchange(a, b, c)
        for node in (a, b, c):
            assert pairs(node) == friends("xw", "zw")
        with a.at_work():
            Friend.objects.get(name="w").delete()
        exchange(a, b, c)
        for node in (a, b, c):
            assert pairs(node) == []
        assert level(a, b, c)
        with a.at_work():
            assert not TrackedResource.objects.filter(kind="friends").exclude(mark=None).exists()


class TestAnAssociationByNaturalKeys:
    """The model of the members is not registered: permissions are made by each node's own migrations."""

    @pytest.fixture(autouse=True)
    def groups(self):
        with sdata_sync.registered(Group, GroupSync):
            assert [message.id for message in check_resources(None)] == ["sdata_sync.W012"]
            yield

    @staticmethod
    def permissions(node):
        with node.at_work():
            return sorted(Group.objects.values_list("name", "permissions__codename"))

    def test_it_is_written_and_taken_away(self, a, b):
        with a.at_work():
            clerks = Group.objects.create(name="clerks")
            clerks.permissions.set(Permission.objects.filter(codename__in=["add_account", "view_account"]))
            Group.objects.create(name="guests")
        push(a, b)
        expected = [("clerks", "add_account"), ("clerks", "view_account"), ("guests", None)]
        assert self.permissions(b) == self.permissions(a) == expected
        with b.at_work():
            Permission.objects.get(codename="add_account").group_set.clear()
            Group.objects.get(name="guests").permissions.add(Permission.objects.get(codename="view_account"))
        push(b, a)
        expected = [("clerks", "view_account"), ("guests", "view_account")]
        assert self.permissions(b) == self.permissions(a) == expected
        assert level(a, b)

    def test_a_member_that_is_not_here_defers_the_entry(self, a, b):
        with a.at_work():
            group = Group.objects.create(name="clerks")
            own = Permission.objects.create(codename="only_here", content_type=ContentType.objects.get_for_model(Group))
        try:
            with a.at_work():
                group.permissions.add(own)
            push(a, b)
            with b.at_work():
                entry = DeferredEntry.objects.get()
                assert "group/permissions: no auth.Permission here has the natural key" in entry.reason
                assert not Group.objects.exists()
            with a.at_work():
                own.delete()  # a change of the group
            push(a, b)
            assert self.permissions(b) == [("clerks", None)]
            assert level(a, b)
        finally:
            with a.at_work():
                Permission.objects.filter(codename="only_here").delete()

    def test_what_is_no_list_of_natural_keys(self, a, b):
        with a.at_work():
            Group.objects.create(name="clerks")
        push(a, b)
        with b.at_work():
            origin = f"{X}groups"
            for tick, members in enumerate([f'<permission sdata:uuid="{uuid4()}"/>', "<permission/>"], start=1):
                content = f"<name>{tick}</name><permissions>{members}</permissions>"
                entry = entry_xml(uuid4(), origin, tick, content, element="group")
                feed = feed_xml(digest_xml((origin, tick), origin=origin), entry)
                receive_feed(of("groups"), BytesIO(feed.encode()), ENGINE)
            assert sorted(entry.reason for entry in DeferredEntry.objects.all()) == [
                "In group/permissions: expected a natural key, since auth.Permission is not registered here.",
                "In group/permissions: no auth.Permission here has the natural key ''.",
            ]

    def test_the_schema_describes_it(self, a):
        with a.at_work():
            schema = render_schema(of("groups").namespace).decode()
        described = schema[schema.index('name="permissions"') :]
        assert 'name="permission" type="xs:string"' in described[: described.index("</xs:complexType>")]


def test_A18_the_other_version_of_what_could_not_be_sent(a, b):
    two_orders(a)
    push(a, b)
    with b.at_work():
        order = SalesOrder.objects.get(order_number="1")
        order.order_number = "mine"
        order.save()
        SalesOrderLine.objects.update(description="a\x01b")
        scan(of("salesOrders"))
        assert TrackedResource.objects.exclude(problem="").exists()
    with a.at_work():
        order = SalesOrder.objects.get(order_number="1")
        order.order_number = "1 of a"
        order.save()
    push(a, b)
    with b.at_work():
        use_other_version(of("salesOrders"), ConflictRecord.objects.get())
        assert SalesOrderLine.objects.count() == 1


def test_A19_a_child_named_by_another_parent(b):
    """Whoever knows its uuid takes it away from its order, which does not notice."""
    two_orders(b)
    account = uuid_of(b, "accounts")
    uuid_of(b, "salesOrders", order_number="1")
    from sdata_sync.models import ChildResource

    with b.at_work():
        line = ChildResource.objects.get().uuid
    strange(b, "salesOrders", entry_xml(
        uuid4(), X + "salesOrders", 5,
        f'<account sdata:uuid="{account}"/><orderNumber>3</orderNumber><orderDate>2026-01-01</orderDate>'
        f'<orderLines sdata:deleteMissing="true"><salesOrderLine sdata:uuid="{line}"><lineNumber>1</lineNumber>'
        "</salesOrderLine></orderLines>", element="salesOrder"))  # fmt: skip
    with b.at_work():
        assign_ticks(of("salesOrders"))
        assert scan(of("salesOrders")).total == 0


# B: one record blocks a feed for good


def test_B1_held_back_generic_reference_in_a_conflict(a, b):
    with a.at_work():
        article = Article.objects.create(title="1")
    push(a, b)
    with b.at_work():
        row = Article.objects.get()
        row.about = Country.objects.create(code="DE")  # not registered
        row.save()
        assign_ticks(of("articles"))
    with a.at_work():
        article.title = "2"
        article.save()
    push(a, b)


def test_B2_held_back_generic_reference_is_read(a):
    with a.at_work():
        Article.objects.create(title="1", about=Country.objects.create(code="DE"))
        client = Client(headers={"authorization": "Token secret-of-node1"})
        assert client.get("/sdata/myApp2/myContract/-/articles").status_code == 200


def test_B3_renamed_there_and_back(a, b):
    with a.at_work():
        Tag.objects.create(name="red")
    push(a, b)
    first = uuid_of(a, "tags")
    put_link(a, "tags", uuid4())
    push(a, b)
    put_link(a, "tags", first)
    push(a, b)
    assert level(a, b)


def test_B4_replaced_by_itself(b):
    with b.at_work():
        Tag.objects.create(name="red")
    uuid = uuid_of(b, "tags")
    strange(b, "tags", alias(uuid, uuid, "tags", "tag"))


def test_B5_renamed_to_what_was_deleted_and_is_protected_here(nodes, a, b):
    c = nodes[2]
    with b.at_work():
        Account.objects.create(name="ACME")
    push(b, a)
    push(b, c)
    with c.at_work():
        SalesOrder.objects.create(account=Account.objects.get(), order_number="1", order_date="2026-01-01")
    put_link(b, "accounts", uuid4())
    push(b, a)
    with a.at_work():
        Account.objects.get().delete()
    push(a, b)
    push(b, c, ["accounts"])


def test_B6_reference_to_a_row_that_is_gone_and_not_numbered_yet(a, b):
    enforce_foreign_keys(a, b)
    with a.at_work():
        account = Account.objects.create(name="ACME")
    push(a, b)
    with b.at_work():
        Account.objects.get().delete()
    with a.at_work():
        Contact.objects.create(account=account, last_name="Doe")
    push(a, b, ["contacts"])


def test_B7_a_natural_key_of_brackets(a):
    country = "<title>1</title><country>" + "[" * 100_000 + "</country>"
    strange(a, "articles", entry_xml(uuid4(), X + "articles", 5, country, element="article"))
    with a.at_work():
        assert DeferredEntry.objects.exists()


def test_B8_find_duplicate_raises(a, b, linked):
    class Authors(sdata_sync.SyncResource):
        def find_duplicate(self, instance):
            return Author.objects.get(name=instance.name)

    linked(Author, Authors)
    with a.at_work():
        Author.objects.create(name="Ann")
    push(a, b)


def test_B9_purging_what_waits_for_something(a, b):
    enforce_foreign_keys(a, b)
    with a.at_work():
        account = Account.objects.create(name="ACME")
        account.main_contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    push(a, b, ["accounts"])
    with b.at_work():
        Account.objects.get().delete()
        assign_ticks(of("accounts"))
        purge(of("accounts"), {}, older_than=None, dry_run=False)


@pytest.mark.parametrize("how", ["get", "link"])
def test_B10_a_key_too_large(a, how):
    from ..wire import ENTRY
    from .test_reading import link_entry

    path, key = "/sdata/myApp2/myContract/-/accounts", "9" * 30
    with a.at_work():
        Account.objects.create(name="x")
        client = Client(headers={"authorization": "Token secret-of-node1"})
        client.raise_request_exception = False
        if how == "get":
            response = client.get(f"{path}('{key}')")
        else:
            response = client.post(f"{path}/$linked", link_entry(key), content_type=ENTRY)
        assert response.status_code in (400, 404)


# C: stuck, stale, unnoticed


def test_C1_what_waited_once_is_never_tried_again(a, b):
    with a.at_work():
        article = Article.objects.create(title="1")
    push(a, b)
    with a.at_work():
        article.parts.create(rank=1, writer=Author.objects.create(name="never sent"))
    push(a, b, ["articles"])  # waits for the writer
    with b.at_work():
        row = Article.objects.get()
        row.title = "overruled"
        row.save()
    push(b, a, ["articles"])
    with a.at_work():
        Part.objects.all().delete()
        Author.objects.all().delete()
        article = Article.objects.get()
        article.country = Country.objects.create(code="IT")
        article.save()
    push(a, b, ["articles"])  # waits for Italy
    with b.at_work():
        Country.objects.create(code="IT")
    with a.at_work():
        Article.objects.create(title="another")
    push(a, b)
    assert level(a, b)


def test_C2_generic_reference_to_what_was_deleted(a, b):
    with a.at_work():
        tag = Tag.objects.create(name="News")
        Article.objects.create(title="About a tag", about=tag)
    push(a, b)
    with a.at_work():
        tag.delete()
        for _ in range(3):
            for kind in ("tags", "articles"):
                assign_ticks(of(kind))
                scan(of(kind))
        assign_ticks(of("tags"))
        assert scan(of("articles")).total == 0  # it has another uuid at every look, and gets a number


def test_C3_generic_reference_to_what_was_renamed(a):
    with a.at_work():
        Article.objects.create(title="1", about=Tag.objects.create(name="red"))
        assign_ticks(of("articles"))
        assign_ticks(of("tags"))
    put_link(a, "tags", uuid4())
    with a.at_work():
        assign_ticks(of("articles"))
        assert scan(of("articles")).total == 0


def test_C4_what_is_awaited_comes_by_a_link(a, b):
    with a.at_work():
        account = Account.objects.create(name="ACME")
        account.main_contact = Contact.objects.create(account=account, last_name="Doe")
        account.save()
    push(a, b, ["accounts"])
    uuid = uuid_of(a, "contacts")
    with b.at_work():
        Contact.objects.create(account=Account.objects.get(), last_name="Doe")
        assign_ticks(of("contacts"))
    put_link(b, "contacts", uuid)
    exchange(a, b)
    with b.at_work():
        assert Account.objects.get().main_contact == Contact.objects.get()


def test_C5_linking_a_row_whose_newer_version_waits(a, b):
    with a.at_work():
        article = Article.objects.create(title="1")
    push(a, b)
    with a.at_work():
        article.country = Country.objects.create(code="IT")
        article.save()
    push(a, b)
    put_link(b, "articles", uuid4())
    with b.at_work():
        assert not DeferredEntry.objects.filter(resource__is_deferred=False).exists()


def test_C6_the_other_version_of_a_union(a, b):
    class LinkedCoupons(sdata_sync.SyncResource):
        on_duplicate = "link"

    class Codes(LinkedCoupons):
        fields = ["code", "value"]

    with sdata_sync.registered(Coupon, Codes):
        for node, value in ((a, 1), (b, 2)):
            with node.at_work():
                Coupon.objects.create(code="TEN", value=value)
            time.sleep(0.01)  # the smaller uuid is a's
        push(a, b)
        with b.at_work():
            value = Coupon.objects.get().value
            use_other_version(of("coupons"), ConflictRecord.objects.get())
            assert Coupon.objects.get().value == 3 - value


def test_C7_deleted_and_referred_to_in_one_page(nodes, a, b):
    c = nodes[2]
    with a.at_work():
        Article.objects.create(title="X")
    push(a, b)
    push(a, c)
    with b.at_work():
        Article.objects.create(title="Y", sequel_to=Article.objects.get())
    with a.at_work():
        Article.objects.get().delete()
    push(b, a)
    push(a, c)
    with c.at_work():
        assert scan(of("articles")).total == 0


def test_C8_a_row_linked_as_ours_is_deleted_with_theirs(a, b):
    for node in (a, b):
        with node.at_work():
            Author.objects.create(name="Ann")
    sync_link(a, b, "authors", ours_win=True)
    with b.at_work():
        Author.objects.get().delete()
    pull(a, b)
    with a.at_work():
        assert Author.objects.count() == 1


def test_C9_two_rows_of_one_page_are_two_things(nodes, a, b, linked):
    """The source has both, so that a merge would delete one of its rows, although ``find_duplicate`` wants it."""
    from sdata_sync.conf import conf

    class Linked(sdata_sync.SyncResource):
        def find_duplicate(self, instance):
            return Author.objects.filter(name=instance.name).first() if "node2" in conf.base_url else None

    linked(Author, Linked)
    for node in (a, b):
        with node.at_work():
            Author.objects.create(name="Ann")
    push(b, a)
    push(a, nodes[2])
    with nodes[2].at_work():
        assert Author.objects.count() == 2


class TestGenericKeysToAnyModel:
    """The column of the object's key is an integer; the keys of other models are texts and uuids."""

    def test_the_applications_own_delete_never_raises(self, a):
        with sdata_sync.registered(Zone), sdata_sync.registered(Coupon), a.at_work():
            Article.objects.create(title="about nothing", about_id=1)
            for model, values in ((Zone, {"code": "north"}), (Coupon, {"code": "TEN"})):
                model.objects.create(**values).delete()
                model.objects.create(**values)
                model.objects.all().delete()
            Session.objects.create(session_key="k", session_data="", expire_date=timezone.now()).delete()

    def test_a_content_type_of_a_proxy_stays_that(self, a, b):
        class NoteSync(sdata_sync.SyncResource):
            fields = ["title", "about"]

        both = ["node0", "node1"]

        class Remark(models.Model):
            title = models.CharField(max_length=20)
            about_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
            about_id = models.CharField(max_length=20, null=True)
            about = GenericForeignKey("about_type", "about_id", for_concrete_model=False)

            class Meta:
                app_label = "shapes"

        with declared(Remark, using=both), sdata_sync.registered(Place), sdata_sync.registered(Remark, NoteSync):
            with a.at_work():
                place = Place.objects.create(name="here")
                Remark.objects.create(title="proxy", about=FavouritePlace.objects.get(pk=place.pk))
                Remark.objects.create(title="plain", about=place)
            push(a, b)
            with b.at_work():
                types = {remark.title: remark.about_type.model for remark in Remark.objects.all()}
                assert types == {"proxy": "favouriteplace", "plain": "place"}
                assert type(Remark.objects.get(title="proxy").about) is FavouritePlace
                Place.objects.get().delete()  # both are emptied by the application or stay: the nodes agree
            push(b, a)
            push(a, b)
            assert level(a, b)
            for node in (a, b):
                with node.at_work():
                    assert not TrackedResource.objects.exclude(problem="").exists()
