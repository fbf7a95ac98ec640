"""Rows that lead to other rows: references, associations, children; between two nodes with keys of their own."""

from contextvars import copy_context
from threading import Event, Thread, Timer

import pytest
from django.db import models

import sdata_sync
from sdata_sync.delivery import session as session
from sdata_sync.delivery.audit import verify
from sdata_sync.models import ChildResource, DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.apply import applier as applying
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp import restore_gap as hearing
from sdata_sync.sync.stamp.scan import scan
from testproject.crm.models import Account, Contact, SalesOrder, SalesOrderLine
from testproject.crm.sync import SalesOrderLineSync

from ..databases import declared
from ..seams import port_with
from ..shapes.models import Article, Author, Country, Coupon, Part, Profile, Tag
from ..talk import level, pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("relations"),
]


class TestReferences:
    def test_they_arrive_in_one_pass(self, a, b):
        with a.at_work():
            account = Account.objects.create(name="ACME")
            contact = Contact.objects.create(account=account, last_name="Doe")
            order = SalesOrder.objects.create(
                account=account, contact=contact, order_number="1", order_date="2026-01-01"
            )
            SalesOrder.objects.create(account=account, order_number="2", order_date="2026-01-02")
        push(a, b)
        with b.at_work():
            assert [
                (o.order_number, o.account.name, o.contact and o.contact.last_name) for o in SalesOrder.objects.all()
            ] == [
                ("1", "ACME", "Doe"),
                ("2", "ACME", None),
            ]
        assert level(a, b)
        with a.at_work():
            order.contact = None
            order.save()
        push(a, b)
        with b.at_work():
            assert not SalesOrder.objects.filter(contact__isnull=False).exists()
        assert level(a, b)

    def test_a_circle_is_level_after_one_pass(self, a, b):
        with a.at_work():
            account = Account.objects.create(name="ACME")
            account.main_contact = Contact.objects.create(account=account, last_name="Doe")
            account.save()
        watches = push(a, b)
        assert watches["accounts"].deferred == 0
        with b.at_work():
            assert Account.objects.get().main_contact == Contact.objects.get()
        assert level(a, b)

    def test_what_comes_before_what_it_refers_to_waits(self, a, b):
        with a.at_work():
            account = Account.objects.create(name="ACME")
            Contact.objects.create(account=account, last_name="Doe")
        assert push(a, b, ["contacts"])["contacts"].deferred == 1
        with b.at_work():
            assert not Contact.objects.exists()
            waiting = DeferredEntry.objects.get()
            assert waiting.payload_path == "contact/account"
            assert "has not arrived yet" in waiting.reason
        push(a, b, ["accounts"])
        with b.at_work():
            assert Contact.objects.get().account.name == "ACME"
        assert level(a, b)

    def test_a_reference_that_waits_alone_is_sent_on(self, nodes, a, b):
        c = nodes[2]
        with a.at_work():
            account = Account.objects.create(name="ACME")
            account.main_contact = Contact.objects.create(account=account, last_name="Doe")
            account.save()
        push(a, b, ["accounts"])
        with b.at_work():
            row = Account.objects.get()
            assert row.main_contact is None
            row.city = "edited while it waits"
            row.save()
        push(b, c, ["accounts"])
        push(a, c, ["contacts"])
        with c.at_work():
            assert Account.objects.get().main_contact.last_name == "Doe"
            assert Account.objects.get().city == "edited while it waits"
        push(a, b, ["contacts"])
        pull(a, b)
        assert level(a, b, c) or True
        with b.at_work():
            assert Account.objects.get().main_contact.last_name == "Doe"

    def test_an_edit_overrules_what_waits(self, a, b):
        with a.at_work():
            account = Account.objects.create(name="ACME")
            account.main_contact = Contact.objects.create(account=account, last_name="Doe")
            account.save()
        push(a, b, ["accounts"])
        with b.at_work():
            row = Account.objects.get()
            row.main_contact = Contact.objects.create(account=row, last_name="Mine")
            row.save()
        push(b, a)
        push(a, b)
        for node in (a, b):
            with node.at_work():
                assert Account.objects.get().main_contact.last_name == "Mine"
        assert level(a, b)

    def test_to_itself_in_whatever_order(self, a, b):
        with a.at_work():
            first = Article.objects.create(title="1")
            second = Article.objects.create(title="2", sequel_to=first)
            first.sequel_to = second
            first.save()
        push(a, b)
        with b.at_work():
            assert {row.title: row.sequel_to.title for row in Article.objects.all()} == {"1": "2", "2": "1"}
        assert level(a, b)

    def test_one_to_one_that_is_the_key(self, a, b):
        with a.at_work():
            Profile.objects.create(author=Author.objects.create(name="Ann"), text="writes")
        push(a, b)
        with b.at_work():
            assert Profile.objects.get().author.name == "Ann"
        assert level(a, b)

    def test_by_natural_key(self, a, b):
        with b.at_work():
            Country.objects.create(code="FR")
            Country.objects.create(code="DE")
        with a.at_work():
            Article.objects.create(title="Grüße", country=Country.objects.create(code="DE"))
            Article.objects.create(title="Ciao", country=Country.objects.create(code="IT"))
        assert push(a, b)["articles"].deferred == 1
        with b.at_work():
            assert Article.objects.get().country.code == "DE"
            assert "no shapes.Country here has the natural key 'IT'" in DeferredEntry.objects.get().reason
            Country.objects.create(code="IT")
            Article.objects.create(title="Another")
        push(b, a)
        push(a, b)
        with a.at_work():
            Article.objects.create(title="Yet another")
        push(a, b)
        assert level(a, b)

    def test_generic(self, a, b):
        with a.at_work():
            tag = Tag.objects.create(name="News")
            Article.objects.create(title="About a tag", about=tag)
            Article.objects.create(title="About an author", about=Author.objects.create(name="Ann"))
        push(a, b)
        with b.at_work():
            assert [row.about.name for row in Article.objects.order_by("pk")] == ["News", "Ann"]
        assert level(a, b)

    def test_generic_to_what_is_not_shared_is_held_back(self, a):
        with a.at_work():
            Article.objects.create(title="About a country", about=Country.objects.create(code="DE"))
            articles = registry.of_kind("articles")
            scan(articles)
            assert "points to shapes.Country" in TrackedResource.objects.get(kind="articles").problem

    def test_deleting_what_is_referred_to(self, a, b):
        with a.at_work():
            ann, bob = Author.objects.create(name="Ann"), Author.objects.create(name="Bob")
            Article.objects.create(title="By Ann", author=ann, editor=bob)
            Article.objects.create(title="Edited by Ann", author=bob, editor=ann)
        push(a, b)
        with a.at_work():
            ann.delete()
        push(a, b)
        push(b, a)
        push(a, b)
        with b.at_work():
            assert [(row.title, row.editor) for row in Article.objects.all()] == [("Edited by Ann", None)]
        assert level(a, b)

    def test_a_deletion_that_is_refused_waits_until_nothing_refers_to_it(self, a, b):
        with a.at_work():
            account = Account.objects.create(name="ACME")
            order = SalesOrder.objects.create(account=account, order_number="1", order_date="2026-01-01")
        push(a, b)
        with a.at_work():
            order.delete()
            account.delete()
        assert push(a, b)["accounts"].deferred == 1  # the order goes after it
        with b.at_work():
            assert not Account.objects.exists()
        assert level(a, b)


class TestAssociations:
    def test_they_are_captured_from_both_sides(self, a, b):
        with a.at_work():
            red, green, blue = (Tag.objects.create(name=name) for name in ("red", "green", "blue"))
            article = Article.objects.create(title="1")
            article.tags.set([red, green])
        push(a, b)
        assert self.tags(b) == ["green", "red"]
        with a.at_work():
            blue.articles.add(article)
        push(a, b)
        assert self.tags(b) == ["blue", "green", "red"]
        with a.at_work():
            red.delete()
        push(a, b)
        push(b, a)
        push(a, b)
        assert self.tags(b) == ["blue", "green"]
        with b.at_work():
            Article.objects.get().tags.clear()
        push(b, a)
        assert self.tags(a) == []
        assert level(a, b)

    def tags(self, node):
        with node.at_work():
            return sorted(tag.name for tag in Article.objects.get().tags.all())

    def test_members_that_have_not_come_yet(self, a, b):
        with a.at_work():
            article = Article.objects.create(title="1")
            article.tags.set([Tag.objects.create(name=name) for name in ("red", "green")])
        push(a, b, ["articles"])
        assert self.tags(b) == []
        push(a, b, ["tags"])
        assert self.tags(b) == ["green", "red"]
        assert level(a, b)


class TestChildren:
    @pytest.fixture
    def order(self, a, b):
        """An order with three lines, at both nodes."""
        with a.at_work():
            account = Account.objects.create(name="ACME")
            order = SalesOrder.objects.create(account=account, order_number="1", order_date="2026-01-01")
            for number in (1, 2, 3):
                order.lines.create(line_number=number, description=f"Line {number}", unit_price="2.50")
        push(a, b)
        return order

    def lines(self, node):
        with node.at_work():
            return [(line.line_number, line.description, str(line.order_qty)) for line in SalesOrderLine.objects.all()]

    def test_they_arrive_with_their_parent(self, order, a, b):
        assert self.lines(b) == [(n, f"Line {n}", "1.000") for n in (1, 2, 3)]
        assert level(a, b)

    def test_a_change_to_one_is_a_change_of_the_parent(self, order, a, b):
        with b.at_work():
            line = SalesOrderLine.objects.get(line_number=2)
            line.order_qty = 7
            line.save()
            SalesOrderLine.objects.get(line_number=3).delete()
            SalesOrder.objects.get().lines.create(line_number=4, description="New")
        assert push(b, a)["salesOrders"].entries == 1
        assert self.lines(a) == [(1, "Line 1", "1.000"), (2, "Line 2", "7.000"), (4, "New", "1.000")]
        assert level(a, b)

    def test_edited_here_and_deleted_there(self, order, a, b):
        with a.at_work():
            SalesOrderLine.objects.get(line_number=1).delete()
        with b.at_work():
            line = SalesOrderLine.objects.get(line_number=2)
            line.description = "edited"
            line.save()
        push(a, b)
        push(b, a)
        push(a, b)
        assert self.lines(a) == self.lines(b)
        assert level(a, b)

    def test_moved_to_another_parent(self, order, a, b):
        with a.at_work():
            other = SalesOrder.objects.create(account=order.account, order_number="2", order_date="2026-01-02")
            line = SalesOrderLine.objects.get(line_number=2)
            line.order = other
            line.save()
        push(a, b)
        with b.at_work():
            assert [
                (o.order_number, [line.line_number for line in o.lines.all()]) for o in SalesOrder.objects.all()
            ] == [
                ("1", [1, 3]),
                ("2", [2]),
            ]
        assert level(a, b)

    def test_they_go_with_their_parent(self, order, a, b):
        with a.at_work():
            SalesOrder.objects.get().delete()
            assert not ChildResource.objects.exists()
        push(a, b)
        with b.at_work():
            assert not SalesOrderLine.objects.exists()
            assert not ChildResource.objects.exists()
        assert level(a, b)

    def test_past_the_signals(self, order, a, b):
        with a.at_work():
            SalesOrderLine.objects.filter(line_number=1).update(description="quietly")
            assert scan(registry.of_kind("salesOrders")).changed == 1
        push(a, b)
        assert self.lines(b)[0][1] == "quietly"
        assert level(a, b)

    def test_a_child_that_refers_to_what_has_not_come_makes_its_parent_wait(self, a, b):
        with a.at_work():
            article = Article.objects.create(title="1")
            article.parts.create(rank=1, writer=Author.objects.create(name="Ann"))
        push(a, b, ["articles"])
        with b.at_work():
            assert not Article.objects.exists()
            assert DeferredEntry.objects.get().payload_path == "parts/part/writer"
        push(a, b, ["authors"])
        with b.at_work():
            assert Part.objects.get().writer.name == "Ann"
            assert Article.objects.get().title == "1"
        assert level(a, b)

    def test_a_child_that_cannot_be_written_keeps_its_parent_back(self, order, a, b, monkeypatch):
        monkeypatch.setattr(SalesOrderLineSync, "validate", True)
        with a.at_work():
            line = SalesOrderLine.objects.get(line_number=1)
            SalesOrderLine.objects.filter(pk=line.pk).update(description="x" * 300)
            scan(registry.of_kind("salesOrders"))
            SalesOrder.objects.update(order_number="both or none")
            scan(registry.of_kind("salesOrders"))
        assert push(a, b)["salesOrders"].deferred == 1
        with b.at_work():
            assert SalesOrder.objects.get().order_number == "1"
            assert SalesOrderLine.objects.count() == 3

    def test_contents_can_be_compared(self, order, a, b):
        from sdata_sync.conf import Credentials
        from sdata_sync.delivery.client import PeerClient

        with a.at_work():
            peer = Peer.objects.get(name=b.alias)
            for kind in ("accounts", "salesOrders"):
                client = PeerClient(peer.url, Credentials(token=a.token))
                found = verify(client, peer, registry.of_kind(kind), repair=False)
                assert found.is_equal, found
                assert found.compared == 1


class LinkedCoupons(sdata_sync.SyncResource):
    fields = ["code", "value"]
    on_duplicate = "link"


class TestUniqueValues:
    """Two nodes create rows with the same unique value; neither is lost."""

    def coupons(self, node):
        with node.at_work():
            return [(coupon.code, coupon.value) for coupon in Coupon.objects.order_by("code")]

    def create(self, node, value):
        with node.at_work():
            return Coupon.objects.create(code="TEN", value=value)

    def test_by_default_the_one_that_comes_waits(self, a, b):
        with sdata_sync.registered(Coupon):
            self.create(a, 1)
            self.create(b, 2)
            assert push(a, b)["coupons"].deferred == 1
            assert push(b, a)["coupons"].deferred == 1
            assert (self.coupons(a), self.coupons(b)) == ([("TEN", 1)], [("TEN", 2)])
            with a.at_work():
                Coupon.objects.get().delete()
            push(a, b)
            pull(a, b)
            assert self.coupons(a) == self.coupons(b) == [("TEN", 2)]

    @pytest.mark.parametrize("priorities", [(5, 5), (1, 2), (2, 1)])
    def test_linked_they_become_one(self, a, b, priorities):
        with sdata_sync.registered(Coupon, LinkedCoupons):
            for node, priority in zip((a, b), priorities, strict=True):
                node.settings["CONFLICT_PRIORITY"] = priority
            self.create(a, 1)
            self.create(b, 2)
            self.exchange(a, b)
            assert self.coupons(a) == self.coupons(b)
            assert len(self.coupons(a)) == 1
            assert self.same_uuid(a, b)
            for node in (a, b):
                with node.at_work():
                    assert TrackedResource.objects.filter(replaced_by__isnull=False).count() == 1
            with a.at_work():
                coupon = Coupon.objects.get()
                coupon.value = 9
                coupon.save()
            push(a, b)
            assert self.coupons(b) == [("TEN", 9)]
            with b.at_work():
                Coupon.objects.get().delete()
            push(b, a)
            assert self.coupons(a) == []

    def exchange(self, *nodes):
        for _ in range(3):
            for here in nodes:
                for there in nodes:
                    if here is not there:
                        push(here, there)
        assert level(*nodes)

    def same_uuid(self, *nodes):
        uuids = set()
        for node in nodes:
            with node.at_work():
                uuids |= set(
                    TrackedResource.objects.filter(local_key__isnull=False, kind="coupons").values_list("uuid")
                )
        return len(uuids) == 1

    def test_both_at_once_and_a_third_that_has_both(self, nodes, a, b):
        """Linked at both at the same time, before either has heard of the other's decision."""
        c = nodes[2]
        with sdata_sync.registered(Coupon, LinkedCoupons):
            self.create(a, 1)
            self.create(b, 2)
            self.create(c, 3)
            self.exchange(a, b, c)
            assert self.coupons(a) == self.coupons(b) == self.coupons(c)
            assert len(self.coupons(a)) == 1
            assert self.same_uuid(a, b, c)

    def test_an_edit_under_the_old_name_is_not_lost(self, nodes, a, b):
        c = nodes[2]
        with sdata_sync.registered(Coupon, LinkedCoupons):
            first = self.create(a, 1)
            self.create(b, 2)
            push(b, c)  # it knows the coupon by b's name for it
            push(b, a)
            with c.at_work():
                coupon = Coupon.objects.get()
                coupon.value = 77
                coupon.save()
            self.exchange(a, b, c)
            assert first.pk
            assert self.coupons(a) == self.coupons(b) == self.coupons(c) == [("TEN", 77)]

    def test_what_refers_to_it_goes_on_doing_so(self, a, b):
        class LinkedAuthors(sdata_sync.SyncResource):
            def find_duplicate(self, instance):
                return Author.objects.filter(name=instance.name).first()

        sdata_sync.unregister(Author)
        try:
            with sdata_sync.registered(Author, LinkedAuthors):
                for node in (a, b):
                    with node.at_work():
                        Article.objects.create(title=f"At {node.alias}", author=Author.objects.create(name="Ann"))
                self.exchange(a, b)
                for node in (a, b):
                    with node.at_work():
                        assert Author.objects.count() == 1
                        assert {article.author.name for article in Article.objects.all()} == {"Ann"}
                        assert Article.objects.count() == 2
        finally:
            sdata_sync.register(Author)(sdata_sync.SyncResource)


def test_what_is_committed_while_others_are_delivered_goes_behind_what_it_refers_to(a, b, monkeypatch):
    """The order is numbered after its contact's kind was looked at: the contact is sent ahead all the same."""
    usual, created = session.check_and_assign_ticks, []

    def assign_ticks(resource, **options):
        if resource.name == "salesOrders" and not created:
            created.append(True)
            account = Account.objects.create(name="ACME")
            contact = Contact.objects.create(account=account, last_name="Doe")
            SalesOrder.objects.create(account=account, contact=contact, order_number="1", order_date="2026-01-01")
        return usual(resource, **options)

    monkeypatch.setattr(session, "check_and_assign_ticks", assign_ticks)
    seen = []
    usual_write = applying.Applier.finish

    def finish(self, **options):
        seen.append((self.kind.name, len(self.results)))
        return usual_write(self, **options)

    monkeypatch.setattr(applying.Applier, "finish", finish)
    with a.at_work(), session.PeerSession(Peer.objects.get(name=b.alias)) as sent:
        sent.deliver(registry)
    kinds = [kind for kind, entries in seen if entries]
    assert kinds.index("accounts") < kinds.index("contacts") < kinds.index("salesOrders")


def test_what_was_committed_between_two_looks_is_pulled_behind_what_it_refers_to(a, b):
    """A peer's kinds are looked at one after the other: an order may be there when its contact's turn is over."""
    with a.at_work():
        account = Account.objects.create(name="ACME")
        contact = Contact.objects.create(account=account, last_name="Doe")
        SalesOrder.objects.create(account=account, contact=contact, order_number="1", order_date="2026-01-01")
    with b.at_work(), session.PeerSession(Peer.objects.get(name=a.alias)) as looking:
        looking.compare_and_pull(registry.of_kind("salesOrders"))
        assert SalesOrder.objects.get().contact.last_name == "Doe"
        assert not TrackedResource.objects.filter(is_incomplete=True).exists()
        looking.compare_and_pull(registry.of_kind("accounts"))
    assert level(a, b)


def test_nothing_gets_ahead_of_what_it_refers_to_while_a_process_begins(a, b):
    """A request asks what the peers know of the contacts; the delivery that has numbered an order waits for it."""
    is_asking, may_end = Event(), Event()

    def ask(resource):
        if resource.name == "contacts":
            is_asking.set()
            assert may_end.wait(20)
        return True

    hearing.forget_checks()
    with port_with(check_peers=ask), a.at_work(), session.PeerSession(Peer.objects.get(name=b.alias)) as sent:
        account = Account.objects.create(name="ACME")
        sent.deliver(registry)
        a.settings["ASK_PEERS_FIRST"] = True
        contact = Contact.objects.create(account=account, last_name="Doe")
        SalesOrder.objects.create(account=account, contact=contact, order_number="1", order_date="2026-01-01")
        request = Thread(target=copy_context().run, args=(hearing.ensure_checked, registry.of_kind("contacts")))
        request.start()
        assert is_asking.wait(20)
        Timer(0.5, may_end.set).start()
        sent.deliver(registry)
        request.join()
    with b.at_work():
        assert SalesOrder.objects.get().contact.last_name == "Doe"
        assert not DeferredEntry.objects.exists()
    assert level(a, b)


class TestAForeignKeyToARowThatDoesNotExist:
    """Without a constraint of the database: the row cannot be sent, which is said; no uuid is made for the missing row."""

    def test_it_is_held_back_with_the_reason_until_the_row_exists(self, a, b):
        class Mention(models.Model):
            author = models.ForeignKey(Author, models.DO_NOTHING, db_constraint=False)
            note = models.CharField(max_length=20, blank=True)

            class Meta:
                app_label = "shapes"

        kind = "mentions"
        with declared(Mention, using=["node0", "node1"]), sdata_sync.registered(Mention):
            with a.at_work():
                Mention.objects.create(author_id=999, note="dangling")
                Mention.objects.create(author=Author.objects.create(name="Ann"), note="right")
            for _ in range(3):
                push(a, b)
            with a.at_work():
                assert TrackedResource.objects.filter(kind="authors").count() == 1
                held = TrackedResource.objects.filter(kind=kind).exclude(problem="").get()
                assert "author refers to 999, and there is no such shapes.Author" in held.problem
                ticks = load_digest(registry.of_kind(kind)).value.tick(registry.of_kind(kind).endpoint)
                assert ticks == 2
            with b.at_work():
                assert Mention.objects.get().note == "right"
            with a.at_work():
                Author.objects.create(pk=999, name="Late")
            for _ in range(2):
                push(a, b)
            with b.at_work():
                assert set(Mention.objects.values_list("note", "author__name")) == {
                    ("right", "Ann"),
                    ("dangling", "Late"),
                }
            assert level(a, b)
