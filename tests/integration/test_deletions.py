"""Received deletions: which rows they take along, what they wait for, and what becomes of edits meanwhile."""

import pytest
from django.db import transaction

from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import ConflictRecord, DeferredEntry, DeletionCondition, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.content.deferred import apply_deletions, keep_rows
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, Contact, SalesOrder

from ..shapes.models import Article, Author, Profile, Tag
from ..talk import level, pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("deletions"),
]


def exchange(*nodes, rounds=2):
    for _ in range(rounds):
        for here in nodes:
            for there in nodes:
                if here is not there:
                    push(here, there)
                    pull(here, there)


def deliver(here, there):
    with here.at_work(), PeerSession(Peer.objects.get(name=there.alias)) as session:
        return session.deliver(registry, impatient=True)


def accounts_and_contact(a, b):
    """Two accounts at both nodes, and a contact of the first."""
    with a.at_work():
        old, new = Account.objects.create(name="old"), Account.objects.create(name="new")
        Contact.objects.create(account=old, last_name="Ada")
    exchange(a, b)
    return old, new


def move_and_delete():
    """At the node at work: Ada moves to the new account, and the old one is deleted, in one transaction."""
    with transaction.atomic():
        contact = Contact.objects.get()
        contact.account = Account.objects.get(name="new")
        contact.save()
        Account.objects.get(name="old").delete()


def contacts(node):
    with node.at_work():
        return [(c.last_name, c.account.name) for c in Contact.objects.order_by("last_name")]


def accounts(node):
    with node.at_work():
        return list(Account.objects.order_by("name").values_list("name", flat=True))


class TestMovedAway:
    @pytest.mark.parametrize("way", ["delivered", "pushed", "pulled"])
    def test_a_row_that_was_moved_away_stays(self, a, b, way):
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        if way == "delivered":
            deliver(a, b)
        elif way == "pushed":
            push(a, b)
        else:
            pull(b, a)
        for node in (a, b):
            assert contacts(node) == [("Ada", "new")]
            assert accounts(node) == ["new"]
        exchange(a, b)
        assert level(a, b)
        with b.at_work():
            assert not ConflictRecord.objects.exists()
            assert not DeletionCondition.objects.exists()

    def test_the_deletion_waits_visibly_and_the_digest_moves_on(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        assert contacts(b) == [("Ada", "old")]
        with b.at_work():
            entry = DeferredEntry.objects.get()
            assert entry.application_code == "DeletionWaits"
            assert "contacts" in entry.reason
            ours = assign_ticks(registry.of_kind("accounts")).value
        with a.at_work():
            assert ours.in_sync_with(assign_ticks(registry.of_kind("accounts")).value)
        push(a, b, ["contacts"])
        assert contacts(b) == [("Ada", "new")]
        assert accounts(b) == ["new"]

    def test_what_goes_with_it_at_its_source_goes_here_too(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            Account.objects.get(name="old").delete()
        push(a, b)
        assert contacts(a) == contacts(b) == []
        assert accounts(b) == ["new"]
        exchange(a, b)
        assert level(a, b)
        with b.at_work():
            assert not ConflictRecord.objects.exists()

    def test_thousands_of_deletions_that_wait_are_all_applied(self, a, b):
        with a.at_work():
            for number in range(120):
                account = Account.objects.create(name=f"account {number}")
                Contact.objects.create(account=account, last_name="x")
        exchange(a, b, rounds=1)
        with a.at_work():
            for account in Account.objects.all():
                account.delete()
        push(a, b)
        assert accounts(b) == []
        assert contacts(b) == []

    def test_three_nodes_in_any_order(self, nodes, a, b):
        c = nodes[2]
        accounts_and_contact(a, b)
        exchange(a, b, c)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        push(b, c, ["accounts"])  # it waits at b, and is sent on from there
        assert contacts(c) == [("Ada", "old")]
        push(a, b, ["contacts"])
        pull(c, b, ["contacts"])
        exchange(a, b, c)
        assert [contacts(node) for node in nodes] == [[("Ada", "new")]] * 3
        assert level(a, b, c)


class TestReferencesThatAreEmptied:
    def test_set_null_does_not_undo_an_edit_of_the_source(self, a, b):
        with a.at_work():
            first, second = Author.objects.create(name="first"), Author.objects.create(name="second")
            Article.objects.create(title="t", editor=first)
        exchange(a, b)
        with a.at_work(), transaction.atomic():
            Article.objects.update(editor=None)
            article = Article.objects.get()
            article.editor = second
            article.save()
            first.delete()
        push(a, b, ["authors"])
        exchange(a, b)
        for node in (a, b):
            with node.at_work():
                assert Article.objects.get().editor.name == "second"
        assert level(a, b)

    def test_set_null_is_no_change_of_the_node_that_it_happens_at(self, a, b):
        with a.at_work():
            author = Author.objects.create(name="first")
            Article.objects.create(title="t", editor=author)
        exchange(a, b)
        with b.at_work():
            before = TrackedResource.objects.get(kind="articles").tick
        with a.at_work():
            author.delete()
        push(a, b, ["authors"])
        with b.at_work():
            assert Article.objects.get().editor is None
            tracked = TrackedResource.objects.get(kind="articles")
            assert (tracked.tick, tracked.mark) == (before, None)
        exchange(a, b)
        assert level(a, b)

    def test_a_row_deleted_with_its_member_stays_deleted(self, a, b):
        with a.at_work():
            tag = Tag.objects.create(name="t")
            Article.objects.create(title="t").tags.add(tag)
        exchange(a, b)
        with a.at_work(), transaction.atomic():
            Article.objects.get().delete()
            Tag.objects.get().delete()
        exchange(a, b)
        for node in (a, b):
            with node.at_work():
                assert not Article.objects.exists()
                assert not Tag.objects.exists()
        assert level(a, b)


class TestRowsThatTheSourceNeverSaw:
    def test_they_go_too_as_a_change_of_this_node_and_a_conflict(self, a, b):
        old, _ = accounts_and_contact(a, b)
        with b.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Brendan")
        with a.at_work():
            old.delete()
        push(a, b)
        assert contacts(b) == []
        with b.at_work():
            [record] = ConflictRecord.objects.all()
            assert record.remote_won
            assert "Brendan" in record.local_payload
            assert record.remote_payload == ""
            assert record.remote_endpoint == f"{a.base_url}/accounts"
        exchange(a, b)
        assert level(a, b)

    def test_with_its_own_primary_key(self, a, b):
        with a.at_work():
            author = Author.objects.create(name="a")
        exchange(a, b)
        with b.at_work():
            Profile.objects.create(author=Author.objects.get(), text="here")
        with a.at_work():
            author.delete()
        push(a, b)
        with b.at_work():
            assert not Profile.objects.exists()
            assert "here" in ConflictRecord.objects.get().local_payload
        exchange(a, b)
        assert level(a, b)


class TestHeldBack:
    """A row of the source's that refers to the deleted one even when all is known holds the deletion."""

    @pytest.fixture
    def held(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            contact = Contact.objects.get()
            contact.account = Account.objects.get(name="new")
            contact.save()
        exchange(a, b)
        with b.at_work():  # moved back here, while the source deletes where it goes
            contact = Contact.objects.get()
            contact.account = Account.objects.get(name="old")
            contact.save()
        with a.at_work():
            Account.objects.get(name="old").delete()
        push(a, b)
        push(a, b)
        return a, b

    def test_it_is_named(self, held):
        _, b = held
        assert contacts(b) == [("Ada", "old")]
        with b.at_work():
            reason = DeferredEntry.objects.get().reason
            assert "Ada" in reason
            assert "still has" in reason

    def test_apply(self, held):
        a, b = held
        with b.at_work():
            assert apply_deletions(registry.of_kind("accounts"), [DeferredEntry.objects.get().pk]) == 1
        exchange(a, b)
        for node in held:
            assert (accounts(node), contacts(node)) == (["new"], [])
        assert level(a, b)
        with b.at_work():
            assert "Ada" in ConflictRecord.objects.get().local_payload

    def test_keep(self, held):
        a, b = held
        with b.at_work():
            assert keep_rows(registry.of_kind("accounts"), [DeferredEntry.objects.get().pk]) == 1
        exchange(a, b)
        for node in held:
            assert (accounts(node), contacts(node)) == (["new", "old"], [("Ada", "old")])
        assert level(a, b)


class TestEditsMeanwhile:
    @pytest.fixture
    def waiting(self, a, b):
        """The deletion of the old account waits at b for the contacts."""
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        return a, b

    def test_an_edit_is_a_conflict_that_the_later_stamp_wins(self, waiting):
        a, b = waiting
        with b.at_work():
            account = Account.objects.get(name="old")
            account.city = "York"
            account.save()
        exchange(a, b)
        for node in waiting:
            assert accounts(node) == ["new", "old"]
        with b.at_work():
            record = ConflictRecord.objects.get()
            assert not record.remote_won
            assert "York" in record.local_payload
        assert level(a, b)

    def test_a_source_with_priority_wins_it(self, waiting):
        a, b = waiting
        a.settings["CONFLICT_PRIORITY"] = 1
        with a.at_work():
            Account.objects.create(name="another")  # a page that tells of the priority
        push(a, b, ["accounts"])
        with b.at_work():
            account = Account.objects.get(name="old")
            account.city = "York"
            account.save()
        exchange(a, b)
        for node in waiting:
            assert accounts(node) == ["another", "new"]
        with b.at_work():
            record = ConflictRecord.objects.get()
            assert record.remote_won
            assert "York" in record.local_payload
        assert level(a, b)

    def test_a_deletion_here_too(self, waiting):
        a, b = waiting
        with b.at_work():
            Account.objects.get(name="old").delete()
        exchange(a, b)
        assert accounts(a) == accounts(b) == ["new"]
        assert level(a, b)


def without_referrers(monkeypatch):
    """Make every source one of another implementation: its feeds say nothing of other kinds."""
    from sdata_sync.sync.select import changes as pages

    monkeypatch.setattr(pages, "stamp_referring_kinds", lambda resource: None)


class TestASourceOfAnotherImplementation:
    @pytest.fixture(autouse=True)
    def foreign(self, nodes, monkeypatch):
        without_referrers(monkeypatch)

    def test_the_deletion_waits_until_the_source_was_asked(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b)
        assert contacts(b) == [("Ada", "new")]
        assert accounts(b) == ["new"], "nothing refers to it any more"

    def test_a_digest_that_was_read_afterwards_is_enough(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        assert contacts(b) == [("Ada", "old")]
        pull(b, a)
        assert contacts(b) == [("Ada", "new")]
        assert accounts(b) == ["new"]
        assert level(a, b)

    def test_what_was_deleted_with_it_goes_when_the_source_was_asked(self, a, b):
        old, _ = accounts_and_contact(a, b)
        with b.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Brendan")
        with a.at_work():
            old.delete()
        push(a, b)
        assert contacts(b) == [("Brendan", "old")]
        pull(b, a)
        assert (contacts(b), accounts(b)) == ([], ["new"])
        with b.at_work():
            assert "Brendan" in ConflictRecord.objects.get().local_payload

    def test_a_source_that_is_no_peer_cannot_be_asked(self, a, b):
        old, _ = accounts_and_contact(a, b)
        with b.at_work():
            Peer.objects.all().delete()
        with a.at_work():
            old.delete()
        push(a, b, ["accounts"])
        assert (contacts(b), accounts(b)) == ([], ["new"])
        with b.at_work():
            assert ConflictRecord.objects.count() == 1


class TestOtherWaysToRefer:
    def test_a_generic_reference_is_kept_and_no_change(self, a, b):
        with a.at_work():
            author = Author.objects.create(name="x")
            Article.objects.create(title="t", about=author)
        exchange(a, b)
        with a.at_work():
            author.delete()
        push(a, b, ["authors"])
        with b.at_work():
            tracked = TrackedResource.objects.get(kind="articles")
            assert tracked.mark is None
            assert Article.objects.get().about is None
        exchange(a, b)
        assert level(a, b)

    def test_a_child_that_goes_with_what_it_refers_to(self, a, b):
        """A part goes with its article; its writer only leaves it."""
        with a.at_work():
            author = Author.objects.create(name="x")
            article = Article.objects.create(title="t")
            article.parts.create(rank=1, writer=author)
        exchange(a, b)
        with a.at_work():
            author.delete()
        exchange(a, b)
        for node in (a, b):
            with node.at_work():
                assert Article.objects.get().parts.get().writer is None
        assert level(a, b)

    def test_a_protected_row_is_deleted_when_nothing_refers_to_it_any_more(self, a, b):
        with a.at_work():
            account = Account.objects.create(name="a")
            order = SalesOrder.objects.create(account=account, order_number="1", order_date="2026-01-01")
        exchange(a, b)
        with a.at_work(), transaction.atomic():
            order.delete()
            account.delete()
        push(a, b, ["accounts"])
        assert accounts(b) == ["a"]
        push(a, b)
        assert accounts(b) == []
        exchange(a, b)
        assert level(a, b)


class TestInTheAdmin:
    @pytest.mark.parametrize(("action", "left"), [("apply_deletion", ["new"]), ("keep_row", ["new", "old"])])
    def test_both_actions(self, a, b, action, left):
        from django.contrib.auth.models import User
        from django.test import Client

        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        with b.at_work():
            client = Client()
            client.force_login(User.objects.create_superuser("admin"))
            entry = DeferredEntry.objects.get()
            response = client.post(
                "/admin/sdata_sync/deferredentry/",
                {"action": action, "_selected_action": [entry.pk]},
                follow=True,
                headers={"host": "testserver"},
            )
            assert response.status_code == 200
            assert b"1 of 1 rows were" in response.content
            assert list(Account.objects.order_by("name").values_list("name", flat=True)) == left
            assert not DeferredEntry.objects.exists()
        exchange(a, b)
        assert accounts(a) == accounts(b) == left
