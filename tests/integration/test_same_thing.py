"""Two rows that are the same thing: which content stays, and that the other one is recorded."""

from contextlib import contextmanager

import pytest
from django.db import connections, models
from django.db.models.signals import post_save

import sdata_sync
from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.models import ConflictRecord, DeferredEntry

from ..databases import declared
from ..many_nodes import two_nodes
from ..shapes.models import Author, Zone
from ..talk import level, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("same thing"),
]


class AuthorSync(sdata_sync.SyncResource):
    order = 1


class MemberSync(sdata_sync.SyncResource):
    on_duplicate = "link"
    order = 2


class MergingSync(MemberSync):
    decision: object = None

    def resolve(self, conflict):
        assert conflict.local.values["email"] == conflict.remote.values["email"]
        return type(self).decision


class Member(models.Model):
    email = models.CharField(max_length=50, unique=True)
    note = models.CharField(max_length=50, blank=True)

    class Meta:
        app_label = "shapes"
        managed = False


@pytest.fixture(autouse=True)
def tables():
    from django.apps import apps

    apps.all_models["shapes"].setdefault("member", Member)
    with declared(Member, using=["node0", "node1"]):
        yield


@contextmanager
def receiving(make):
    """A receiver of the application that makes a row for each author that arrives."""

    def on_author(instance, **kwargs):
        if sdata_sync.is_applying():
            make(instance)

    post_save.connect(on_author, sender=Author)
    try:
        yield
    finally:
        post_save.disconnect(on_author, sender=Author)


def exchange(*nodes):
    for _ in range(3):
        push(*nodes)
        push(*reversed(nodes))


def notes(node):
    with node.at_work():
        assert not DeferredEntry.objects.exists()
        return list(Member.objects.values_list("email", "note"))


def records(*nodes):
    found = []
    for node in nodes:
        with node.at_work():
            found += [record.losing_payload for record in ConflictRecord.objects.all()]
    return found


@pytest.mark.parametrize("first", ["typed before its author", "typed after its author"])
@pytest.mark.parametrize("begins", [0, 1])
def test_a_row_that_a_receiver_makes_yields_to_one_that_somebody_made(monkeypatch, first, begins):
    def make(author):
        Member.objects.create(email=f"{author.name}@x", note="by a receiver")

    with two_nodes(monkeypatch, (Author, AuthorSync), (Member, MemberSync)) as (a, b), receiving(make):
        with a.at_work():
            acts = [
                lambda: Member.objects.create(email="ann@x", note="typed by a user"),
                lambda: Author.objects.create(name="ann"),
            ]
            for act in acts if first == "typed before its author" else reversed(acts):
                act()
        if begins == 0:
            exchange(a, b)
        else:  # the row of the receiver is sent back before the typed one has arrived
            with a.at_work():
                typed = Member.objects.get()
            with b.at_work():
                make(Author(name="zoe"))
            exchange(b, a)
            assert typed.note == "typed by a user"
        typed_notes = [("ann@x", "typed by a user")] + ([("zoe@x", "by a receiver")] if begins else [])
        assert sorted(notes(a)) == sorted(notes(b)) == typed_notes
        assert level(a, b)
        assert any("by a receiver" in payload for payload in records(a, b))
        with b.at_work():  # its time is no delay
            seconds = [s.seconds_behind for kind in collect_status(b.base_url).kinds for s in kind.streams]
            assert max(second or 0 for second in seconds) < 3600


def test_also_where_equal_keys_are_one_row(monkeypatch):
    def make(author):
        Zone.objects.create(code="north", label="by a receiver")

    class ZoneSync(sdata_sync.SyncResource):
        order = 2

    with two_nodes(monkeypatch, (Author, AuthorSync), (Zone, ZoneSync)) as (a, b), receiving(make):
        with a.at_work():
            Zone.objects.create(code="north", label="typed by a user")
            Author.objects.create(name="ann")
        exchange(a, b)
        for node in (a, b):
            with node.at_work():
                assert Zone.objects.values_list("code", "label").get() == ("north", "typed by a user")
        assert level(a, b)


@pytest.mark.parametrize(
    ("decision", "stays"),
    [
        ("local", "of node1"),
        ("remote", "of node0"),
        ({"note": "of both"}, "of both"),
        (None, "of node1"),  # the later one
    ],
)
def test_the_application_decides(monkeypatch, decision, stays):
    with two_nodes(monkeypatch, (Member, MergingSync)) as (a, b):
        b.skew_millis = 1000
        for node in (a, b):
            with node.at_work():
                Member.objects.create(email="ann@x", note=f"of {node.alias}")
        MergingSync.decision = decision
        push(a, b)
        MergingSync.decision = None
        exchange(a, b)
        assert notes(a) == notes(b) == [("ann@x", stays)]
        assert level(a, b)
        assert records(b)


class TestTwoRowsOfOneNode:
    """They are two things, although the other node takes them for one: none of them is deleted."""

    class IgnoringCase(MemberSync):
        def find_duplicate(self, instance):
            return Member.objects.filter(email__iexact=instance.email).first()

    @pytest.mark.parametrize("together", [True, False], ids=["in one feed", "one after the other"])
    def test_a_find_duplicate_that_finds_one_in_the_other(self, monkeypatch, together):
        with two_nodes(monkeypatch, (Member, self.IgnoringCase)) as (a, b):
            with a.at_work():
                Member.objects.create(email="ann@x", note="one")
            if not together:
                exchange(a, b)
            with a.at_work():
                Member.objects.create(email="ANN@x", note="two")
            exchange(a, b)
            assert sorted(notes(a)) == sorted(notes(b)) == [("ANN@x", "two"), ("ann@x", "one")]
            with b.at_work():
                member = Member.objects.get(note="one")
                member.note = "one, edited"
                member.save()
            exchange(a, b)
            assert sorted(notes(a)) == sorted(notes(b)) == [("ANN@x", "two"), ("ann@x", "one, edited")]
            assert level(a, b)

    def test_also_after_the_other_node_has_edited_one(self, monkeypatch):
        with two_nodes(monkeypatch, (Member, self.IgnoringCase)) as (a, b):
            with a.at_work():
                Member.objects.create(email="ann@x", note="one")
            exchange(a, b)
            with b.at_work():
                member = Member.objects.get()
                member.note = "edited"
                member.save()
            exchange(a, b)
            with a.at_work():
                Member.objects.create(email="ANN@x", note="two")
            exchange(a, b)
            assert sorted(notes(a)) == sorted(notes(b)) == [("ANN@x", "two"), ("ann@x", "edited")]

    @pytest.mark.parametrize("together", [True, False], ids=["in one feed", "one after the other"])
    def test_a_constraint_of_the_target_that_takes_only_one(self, monkeypatch, together):
        """One is deferred at the target; the source keeps both."""
        with two_nodes(monkeypatch, (Member, MemberSync)) as (a, b):
            with connections["node1"].cursor() as cursor:
                cursor.execute("CREATE UNIQUE INDEX only_one ON shapes_member (lower(email))")
            with a.at_work():
                Member.objects.create(email="ann@x", note="one")
            if not together:
                exchange(a, b)
            with a.at_work():
                Member.objects.create(email="ANN@x", note="two")
            exchange(a, b)
            with a.at_work():
                assert Member.objects.count() == 2
            with b.at_work():
                assert Member.objects.count() == 1
                [entry] = DeferredEntry.objects.all()
                assert "IntegrityError" in entry.reason
