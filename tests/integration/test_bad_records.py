"""One bad record never blocks a kind: rows that cannot be read, encoded, rendered, sent, decoded, written or committed."""

import random
import re

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections
from django.db.models.signals import post_save, pre_delete
from django.utils import timezone

import sdata_sync
from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.delivery.session import PeerSession
from sdata_sync.kind import Kind
from sdata_sync.models import ConflictRecord, DeferredEntry, OversizeVersion, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.resources import SyncResource
from sdata_sync.sync.content.write import writer as writing
from sdata_sync.sync.stamp.scan import scan
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..many_nodes import LocalNode, wired
from ..shapes.models import Article, Claim, Country, Tag, Treasure
from ..talk import level, pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("bad records"),
]


class ArticleSync(SyncResource):
    fields = ["title", "country", "tags"]


@pytest.fixture
def nodes(monkeypatch):
    nodes = [LocalNode(number) for number in range(2)]
    with (
        wired(nodes, monkeypatch),
        sdata_sync.registered(Treasure),
        sdata_sync.registered(Tag),
        sdata_sync.registered(Article, ArticleSync),
    ):
        for node in nodes:
            node.settings["PAGE_SIZE"], node.settings["MAX_PAGE_SIZE"] = 10, 50
            node.reset([other for other in nodes if other is not node])
        yield nodes


@pytest.fixture
def a(nodes):
    return nodes[0]


def treasures(node):
    with node.at_work():
        return set(Treasure.objects.values_list("name", flat=True))


def raw(node, statement, *values):
    with connections[node.alias].cursor() as cursor:
        cursor.execute(statement, values)


def set_column(node, column, value, name="bad"):
    raw(node, f"UPDATE shapes_treasure SET {column} = %s WHERE name = %s", value, name)


def is_sqlite():
    return connections["node0"].vendor == "sqlite"


def create(node, *names, **values):
    with node.at_work():
        for name in names:
            Treasure.objects.create(name=name, **values)


def held_back(node):
    with node.at_work():
        return {row.problem for row in TrackedResource.objects.exclude(problem="")}


#: What a column may hold that cannot be read as what it is: column, value, pattern of the reason.
UNREADABLE = [
    ("number", "text", "ValueError"),
    ("moment", "9999-99-99 00:00:00", "Error"),
    ("price", "no number", "Error|InvalidOperation"),  # of Django or of the decimal module, by Django's version
    ("name", b"bad\xff\xfe", "decode"),
]


class TestAtTheSource:
    @pytest.mark.parametrize(("column", "value", "reason"), UNREADABLE)
    def test_what_cannot_be_read_is_held_back_and_sent_when_it_can(self, a, b, column, value, reason):
        if not is_sqlite():
            pytest.skip("only SQLite keeps such a value")
        create(a, "first", "bad", "last")
        with a.at_work():
            bad = str(Treasure.objects.get(name="bad").pk)
        if isinstance(value, bytes):
            raw(a, "UPDATE shapes_treasure SET name = CAST(%s AS TEXT) WHERE id = %s", value, bad)
        else:
            set_column(a, column, value)
        push(a, b)
        assert treasures(b) == {"first", "last"}
        [problem] = held_back(a)
        assert re.search(reason, problem)
        with a.at_work():
            assert scan(registry.of_kind("treasures"), dry_run=True).unreadable in (0, 1)
            status = collect_status(a.base_url)
            assert not status.is_level
        raw(a, f"UPDATE shapes_treasure SET {column} = NULL WHERE id = %s" if column != "name" else
            "UPDATE shapes_treasure SET name = 'bad' WHERE id = %s", bad)  # fmt: skip
        push(a, b)
        assert treasures(b) == {"first", "bad", "last"}
        assert level(a, b)

    def test_what_was_sent_and_cannot_be_read_any_more(self, a, b):
        if not is_sqlite():
            pytest.skip("only SQLite keeps such a value")
        create(a, "first", "bad", "last")
        push(a, b)
        set_column(a, "number", "text")
        with a.at_work():
            assert scan(registry.of_kind("treasures"), dry_run=True).unreadable == 1
            with pytest.raises(SystemExit):
                call_command("sync_scan")
        create(a, "another")
        push(a, b)
        pull(b, a)
        assert treasures(b) == {"first", "bad", "last", "another"}
        assert held_back(a)
        set_column(a, "number", 7)
        push(a, b)
        with b.at_work():
            assert Treasure.objects.get(name="bad").number == 7

    def test_a_row_that_becomes_unreadable_before_it_is_sent_gets_a_new_tick_later(self, a, b):
        if not is_sqlite():
            pytest.skip("only SQLite keeps such a value")
        create(a, "first", "bad", "last")
        with a.at_work():
            assign_ticks(registry.of_kind("treasures"))
            before = TrackedResource.objects.get(
                kind="treasures", local_key=str(Treasure.objects.get(name="bad").pk)
            ).tick
        set_column(a, "number", "text")
        push(a, b)
        assert treasures(b) == {"first", "last"}
        set_column(a, "number", 7)
        push(a, b)
        with b.at_work():
            assert Treasure.objects.get(name="bad").number == 7
        with a.at_work():
            assert TrackedResource.objects.get(local_key=str(Treasure.objects.get(name="bad").pk)).tick > before
        assert level(a, b)

    def test_a_time_that_overflows_in_its_zone(self, a, b, settings):
        settings.USE_TZ, settings.TIME_ZONE = False, "America/New_York"
        create(a, "first", "last")
        create(a, "bad", moment=timezone.datetime(9999, 12, 31, 23, 0))
        push(a, b)
        assert treasures(b) == {"first", "last"}
        [problem] = held_back(a)
        assert "OverflowError" in problem

    def test_a_natural_key_that_raises(self, a, b, monkeypatch):
        usual = Country.natural_key
        with b.at_work():
            Country.objects.create(code="fr")
        with a.at_work():
            good, bad = Country.objects.create(code="fr"), Country.objects.create(code="xx")
            Article.objects.create(title="good", country=good)
            Article.objects.create(title="bad", country=bad)

        def natural_key(self):
            if self.code == "xx":
                raise LookupError("no key")
            return usual(self)

        monkeypatch.setattr(Country, "natural_key", natural_key)
        push(a, b)
        with b.at_work():
            assert [article.title for article in Article.objects.all()] == ["good"]
        [problem] = held_back(a)
        assert "LookupError: no key" in problem

    def test_a_rendering_that_raises_gives_no_ticks_in_vain(self, a, b, monkeypatch):
        usual = Kind.render

        def render(self, attributes, contents, *rest):
            if "bad" in contents:
                raise RuntimeError("cannot be rendered")
            return usual(self, attributes, contents, *rest)

        create(a, "first", "bad", "last")
        monkeypatch.setattr(Kind, "render", render)
        for _ in range(3):
            push(a, b)
        assert treasures(b) == {"first", "last"}
        with a.at_work():
            [problem] = held_back(a)
            assert "cannot be rendered" in problem
            assert assign_ticks(registry.of_kind("treasures")).value.tick(f"{a.base_url}/treasures") == 4
        monkeypatch.setattr(Kind, "render", usual)
        push(a, b)
        assert treasures(b) == {"first", "bad", "last"}
        assert level(a, b)


class TestAtTheTarget:
    def test_a_descriptor_that_raises_on_assignment(self, a, b):
        create(a, "first", "bad", "last")
        set_column(a, "picture", "not here")
        push(a, b)
        assert treasures(b) == {"first", "last"}
        with b.at_work():
            assert "FileNotFoundError" in DeferredEntry.objects.get().reason
        set_column(a, "picture", "here")
        with a.at_work():
            scan(registry.of_kind("treasures"))
        push(a, b)
        assert treasures(b) == {"first", "bad", "last"}
        assert level(a, b)

    def test_a_clean_that_raises_anything(self, a, b, monkeypatch):
        monkeypatch.setattr(SyncResource, "validate", True)
        create(a, "first", "unclean", "last")
        push(a, b)
        assert treasures(b) == {"first", "last"}
        with b.at_work():
            assert "RuntimeError: clean() raises what it likes" in DeferredEntry.objects.get().reason

    @pytest.mark.parametrize(
        "error", [OperationalError(1644, "signalled by a trigger"), RuntimeError("no"), OSError(2, "no")]
    )
    def test_a_receiver_that_raises(self, a, b, error):
        def refuse(instance, **kwargs):
            if instance.name == "bad" and instance._state.db == b.alias:
                raise error

        create(a, "first", "bad", "last")
        post_save.connect(refuse, sender=Treasure)
        try:
            push(a, b)
        finally:
            post_save.disconnect(refuse, sender=Treasure)
        assert treasures(b) == {"first", "last"}
        with b.at_work():
            assert type(error).__name__ in DeferredEntry.objects.get().reason
        create(a, "later")
        push(a, b)
        assert treasures(b) == {"first", "bad", "last", "later"}
        assert level(a, b)

    def test_a_fault_of_the_environment_ends_the_page_and_the_digest_stays(self, a, b):
        def full(instance, **kwargs):
            if instance._state.db == b.alias:
                raise OSError(28, "No space left on device")

        create(a, "first")
        post_save.connect(full, sender=Treasure)
        try:
            with pytest.raises(AssertionError):
                push(a, b)
        finally:
            post_save.disconnect(full, sender=Treasure)
        with b.at_work():
            assert not DeferredEntry.objects.exists()
            assert not TrackedResource.objects.exists()
        push(a, b)
        assert treasures(b) == {"first"}

    def test_a_constraint_that_fails_when_the_transaction_ends(self, a, b):
        create(a, "first", "bad", "last")
        push(a, b)
        with b.at_work():
            Claim.objects.create(treasure=Treasure.objects.get(name="bad"))
        with a.at_work():
            for treasure in Treasure.objects.exclude(name="first"):
                treasure.delete()
        create(a, "another")
        push(a, b)
        assert treasures(b) == {"first", "bad", "another"}
        with b.at_work():
            assert "IntegrityError" in DeferredEntry.objects.get().reason
            Claim.objects.all().delete()
        create(a, "later")
        push(a, b)
        pull(b, a)
        assert treasures(b) == {"first", "another", "later"}
        assert level(a, b)

    def test_a_transaction_that_fails_as_a_whole_is_repeated_row_by_row(self, a, b, monkeypatch):
        """What nothing has foreseen is found at COMMIT."""
        monkeypatch.setattr(writing, "are_kept_referring", lambda resource, instances: False)
        self.test_a_constraint_that_fails_when_the_transaction_ends(a, b)

    def test_a_deletion_whose_receiver_raises_an_error_that_shows_rows(self, a, b):
        """The text of a ProtectedError shows the rows, whose own text raises."""
        from django.db.models import ProtectedError

        def protect(instance, **kwargs):
            if instance._state.db == b.alias:
                raise ProtectedError("kept", {instance})

        create(a, "first", "bad")
        push(a, b)
        with a.at_work():
            Treasure.objects.get(name="bad").delete()
        pre_delete.connect(protect, sender=Treasure)
        try:
            push(a, b)
        finally:
            pre_delete.disconnect(protect, sender=Treasure)
        with b.at_work():
            assert "kept: shapes.Treasure" in DeferredEntry.objects.get().reason

    def test_a_conflict_on_a_field_whose_attribute_is_not_the_columns_value(self, a, b):
        create(a, "first", "both", price=5)
        push(a, b)
        for node, price in ((b, 6), (a, 7)):
            with node.at_work():
                treasure = Treasure.objects.get(name="both")
                treasure.price = price
                treasure.save()
        push(a, b)
        pull(a, b)
        with b.at_work():
            assert [t.price.amount for t in Treasure.objects.order_by("name")] == [7, 5]
            assert ">6.00<" in ConflictRecord.objects.get().local_payload
        assert level(a, b)

    def test_a_row_here_that_cannot_be_read_defers_its_new_version(self, a, b):
        if not is_sqlite():
            pytest.skip("only SQLite keeps such a value")
        create(a, "first", "bad", "last")
        push(a, b)
        set_column(b, "moment", "9999-99-99 00:00:00")
        with a.at_work():
            for treasure in Treasure.objects.all():
                treasure.number = 9
                treasure.save()
        push(a, b)
        with b.at_work():
            assert Treasure.objects.filter(number=9).count() == 2
            assert "cannot be read" in DeferredEntry.objects.get().reason
        set_column(b, "moment", None)
        create(a, "later")
        push(a, b)
        with b.at_work():
            assert Treasure.objects.filter(number=9).count() == 3
        assert level(a, b)


class TestLarge:
    """A record that is larger than the peer accepts."""

    @pytest.fixture
    def small(self, b, settings):
        """The second node accepts bodies of 200 KB at most."""
        b.settings["MAX_BODY_BYTES"] = 200_000
        return b

    def names(self, node):
        with node.at_work():
            return set(Account.objects.values_list("name", flat=True))

    @pytest.fixture
    def sent(self, a, small):
        with a.at_work():
            for name, notes in (("first", ""), ("large", "x" * 300_000), ("last", "")):
                Account.objects.create(name=name, notes=notes)
        return a, small

    def test_pushed_it_is_left_out_named_and_sent_when_it_is_accepted(self, sent):
        a, b = sent
        with a.at_work(), PeerSession(Peer.objects.get()) as session:
            session.deliver(registry, impatient=True)
        assert self.names(b) == {"first", "last"}
        with a.at_work():
            status = collect_status(a.base_url)
            assert not status.is_level
            [held] = [s.held for k in status.kinds for s in k.streams if s.held]
            assert held[0].startswith("accounts(")
        with a.at_work():
            Account.objects.create(name="another")
        with a.at_work(), PeerSession(Peer.objects.get()) as session:
            assert session.deliver(registry, impatient=True) is None
        assert self.names(b) == {"first", "last", "another"}
        with a.at_work(), pytest.raises(SystemExit):
            call_command("sync_catchup", "--push")
        del b.settings["MAX_BODY_BYTES"]
        push(a, b)
        push(a, b)
        assert len(self.names(b)) == 4
        with a.at_work():
            assert not OversizeVersion.objects.exists()

    def test_pulled(self, sent):
        a, b = sent
        for _ in range(2):
            with pytest.raises(AssertionError, match="larger than this node"):
                pull(b, a, ["accounts"])
        assert self.names(b) == {"first", "last"}
        with a.at_work():
            assert OversizeVersion.objects.get().size_bytes > 300_000
            assert not collect_status(a.base_url).is_level
        del b.settings["MAX_BODY_BYTES"]
        push(a, b)
        push(a, b)
        assert len(self.names(b)) == 3

    def test_a_smaller_version_is_sent_by_itself(self, sent):
        a, b = sent
        with pytest.raises(AssertionError, match="larger than node1 accepts"):
            push(a, b)
        with a.at_work():
            account = Account.objects.get(name="large")
            account.notes = "small"
            account.save()
        push(a, b)
        assert self.names(b) == {"first", "large", "last"}
        with a.at_work():
            assert collect_status(a.base_url).is_level


ERRORS = [
    ValueError("x"),
    OSError(2, "x"),
    OperationalError(1644, "x"),
    KeyError("x"),
    RecursionError("x"),
    ArithmeticError,
]


class Saboteur:
    """Makes one row raise ``error`` at one point, at both nodes, until ``stop``."""

    POINTS = ["texts", "render", "read_payload", "assign", "save", "delete", "clean"]

    def __init__(self, name, error, patch):
        self.name, self.error, self.patch = name, error, patch

    def check(self, name):
        if name == self.name:
            raise self.error

    def start(self, point):
        getattr(self, f"break_{point}")()

    def stop(self):
        self.patch.undo()
        post_save.disconnect(self.refuse, sender=Treasure)
        pre_delete.disconnect(self.refuse, sender=Treasure)

    def refuse(self, instance, **kwargs):
        self.check(instance.name)

    def break_texts(self):
        usual = Kind.encode

        def texts(resource, values):
            values = list(values)
            self.check(values[0])
            return usual(resource, values)

        self.patch.setattr(Kind, "encode", texts)

    def break_render(self):
        usual = Kind.render

        def render(resource, attributes, contents, *rest):
            self.check(contents[0])
            return usual(resource, attributes, contents, *rest)

        self.patch.setattr(Kind, "render", render)

    def break_read_payload(self):
        usual = Kind.decode

        def read_payload(resource, payload, **kwargs):
            reading = usual(resource, payload, **kwargs)
            self.check(reading.values.get("name"))
            return reading

        self.patch.setattr(Kind, "decode", read_payload)

    def break_assign(self):
        def assign(instance, name, value):
            if name == "name":
                self.check(value)
            object.__setattr__(instance, name, value)

        self.patch.setattr(Treasure, "__setattr__", assign)

    def break_save(self):
        post_save.connect(self.refuse, sender=Treasure)

    def break_delete(self):
        pre_delete.connect(self.refuse, sender=Treasure)

    def break_clean(self):
        self.patch.setattr(Treasure, "clean", lambda instance: self.check(instance.name))


@pytest.mark.parametrize("number", range(40))
def test_rows_that_raise_at_random_points(a, b, number):
    """Whatever one row raises wherever, the others arrive; and when it does not raise any more, so does it."""
    chance = random.Random(number)
    create(a, *(f"row {n}" for n in range(6)))
    push(a, b)
    create(a, *(f"new {n}" for n in range(4)))
    with a.at_work():
        for treasure in Treasure.objects.filter(name__startswith="row"):
            if chance.random() < 0.5:
                treasure.number = number
                treasure.save()
        if chance.random() < 0.5:
            Treasure.objects.get(name="row 5").delete()
        every = set(Treasure.objects.values_list("name", "number"))
    bad = chance.choice(["row 1", "row 5", "new 2"])
    with pytest.MonkeyPatch.context() as patch:
        saboteur = Saboteur(bad, chance.choice(ERRORS), patch)
        saboteur.start(chance.choice(Saboteur.POINTS))
        try:
            for _ in range(2):
                push(a, b)
                pull(a, b)
            assert treasures(b) - {bad} == {name for name, _ in every} - {bad}
            with a.at_work():
                scan(registry.of_kind("treasures"), dry_run=True)
        finally:
            saboteur.stop()
    for _ in range(2):
        push(a, b)
        pull(b, a)
    with b.at_work():
        assert set(Treasure.objects.values_list("name", "number")) == every
    assert level(a, b)
