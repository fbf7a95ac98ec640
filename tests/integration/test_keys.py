"""A primary key that the database does not make is the key of the row at every node."""

import datetime as dt
from decimal import Decimal
from enum import Enum

import pytest
from django.db import IntegrityError, connections, models
from django.db.models.signals import post_save

from sdata_sync.models import ConflictRecord, DeferredEntry, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.keys import key_of
from sdata_sync.sync.log.tracked import respell_keys
from sdata_sync.sync.stamp.scan import scan

from ..databases import declared
from ..many_nodes import two_nodes
from ..shapes.models import Coupon, PaidBill, Player, Zone, ZoneProfile
from ..talk import level, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("keys"),
]


@pytest.fixture
def nodes(monkeypatch):
    with two_nodes(monkeypatch, Zone, ZoneProfile, PaidBill, Coupon) as nodes:
        yield nodes


def rows(node, model):
    with node.at_work():
        return list(model.objects.order_by("pk").values())


def exchange(a, b):
    for _ in range(2):
        push(a, b)
        push(b, a)


def in_step(a, b, *models):
    for model in models:
        assert rows(a, model) == rows(b, model)
    for node in (a, b):
        with node.at_work():
            assert not DeferredEntry.objects.exists()
    assert level(a, b)


class TestTheyTravel:
    def test_text_keys_and_references_by_them(self, a, b):
        with a.at_work():
            north = Zone.objects.create(code="north", label="North")
            Zone.objects.create(code="ünder/'1", label="quoted", parent=north)
        push(a, b)
        assert [row["code"] for row in rows(b, Zone)] == ["north", "ünder/'1"]
        in_step(a, b, Zone)

    def test_the_empty_text(self, a, b):
        with a.at_work():
            Zone.objects.create(code="", label="no code")
        push(a, b)
        in_step(a, b, Zone)

    def test_a_uuid_that_the_application_gives(self, a, b):
        with a.at_work():
            Coupon.objects.create(code="TEN")
        push(a, b)
        in_step(a, b, Coupon)

    def test_a_link_to_a_parent_over_two_levels(self, a, b):
        with a.at_work():
            PaidBill.objects.create(number=7, title="Seven", amount=Decimal("7.50"), paid_on=dt.date(2024, 2, 3))
        push(a, b)
        in_step(a, b, PaidBill)
        with b.at_work():
            bill = PaidBill.objects.get(number=7)
            bill.amount = Decimal("8.00")
            bill.save()
        push(b, a)
        in_step(a, b, PaidBill)
        assert rows(a, PaidBill)[0]["amount"] == Decimal("8.00")

    def test_a_one_to_one_key(self, a, b):
        with a.at_work():
            ZoneProfile.objects.create(zone=Zone.objects.create(code="north"), text="cold")
        push(a, b)
        in_step(a, b, Zone, ZoneProfile)

    def test_where_receivers_make_each_row_be_saved_alone(self, a, b):
        def receive(**kwargs):
            """Do nothing."""

        for model in (Zone, ZoneProfile, Coupon):
            post_save.connect(receive, sender=model)
        try:
            self.test_a_one_to_one_key(a, b)
            self.test_a_uuid_that_the_application_gives(a, b)
        finally:
            for model in (Zone, ZoneProfile, Coupon):
                post_save.disconnect(receive, sender=model)


class TestEqualKeysAreOneRow:
    @pytest.mark.parametrize("first", ["a", "b"])
    def test_loaded_at_both_nodes(self, a, b, first):
        for node in (a, b):
            with node.at_work():
                zones = [Zone.objects.create(code=f"z{number:03}", label="same") for number in range(30)]
                ZoneProfile.objects.create(zone=zones[0], text="same")
                PaidBill.objects.create(number=1, title="same")
        exchange(*((a, b) if first == "a" else (b, a)))
        in_step(a, b, Zone, ZoneProfile, PaidBill)
        with a.at_work():
            assert Zone.objects.count() == 30
            assert not ConflictRecord.objects.exists()

    def test_with_other_content_both_versions_are_kept(self, a, b):
        for node in (a, b):
            with node.at_work():
                Zone.objects.create(code="north", label=f"of {node.alias}")
        exchange(a, b)
        in_step(a, b, Zone)
        labels = {"of node0", "of node1"} - {rows(a, Zone)[0]["label"]}
        records = []
        for node in (a, b):
            with node.at_work():
                records += ConflictRecord.objects.all()
        assert any(label in record.losing_payload for label in labels for record in records)
        with b.at_work():
            assert TrackedResource.objects.exclude(local_key=None).count() == 1

    def test_edits_and_deletions_afterwards(self, a, b):
        for node in (a, b):
            with node.at_work():
                Zone.objects.create(code="north")
        exchange(a, b)
        with b.at_work():
            Zone.objects.filter(code="north").first().delete()
        exchange(a, b)
        in_step(a, b, Zone)
        assert rows(a, Zone) == []
        with a.at_work():
            Zone.objects.create(code="north", label="again")
        exchange(a, b)
        in_step(a, b, Zone)
        assert [row["label"] for row in rows(b, Zone)] == ["again"]

    def test_deleted_and_created_again_before_anything_was_sent(self, a, b):
        with a.at_work():
            Zone.objects.create(code="north")
        push(a, b)
        with a.at_work():
            Zone.objects.get(code="north").delete()
            Zone.objects.create(code="north", label="again")
        exchange(a, b)
        in_step(a, b, Zone)
        assert [row["label"] for row in rows(b, Zone)] == ["again"]


class Shelf(str, Enum):  # noqa: UP042  its str() is the name of the member
    LEFT = "left"
    RIGHT = "right"


class ShiftedField(models.IntegerField):
    """Holds a number that is 1,000 less than its attribute."""

    def from_db_value(self, value, expression, connection):
        return None if value is None else value + 1000

    def get_prep_value(self, value):
        return None if value is None else int(value) - 1000


def ignoring_case():
    """Return a collation that ignores case, of the database of the nodes."""
    vendor = connections["node0"].vendor
    return {"sqlite": "nocase", "mysql": "utf8mb4_general_ci"}.get(vendor) or pytest.skip("has none from the start")


def rate_model():
    class Rate(models.Model):
        factor = models.DecimalField(primary_key=True, max_digits=8, decimal_places=2)
        label = models.CharField(max_length=20, blank=True)

        class Meta:
            app_label = "shapes"

    return Rate


def moment_model():
    class Moment(models.Model):
        at = models.DateTimeField(primary_key=True)
        label = models.CharField(max_length=20, blank=True)

        class Meta:
            app_label = "shapes"

    return Moment


def slot_model():
    class Slot(models.Model):
        shelf = models.CharField(primary_key=True, max_length=20)
        label = models.CharField(max_length=20, blank=True)

        class Meta:
            app_label = "shapes"

    return Slot


NOON = dt.datetime(2024, 6, 1, 12, 0, 0, 250_000, tzinfo=dt.UTC)
SPELLED = [
    pytest.param(rate_model, [Decimal("2.5"), Decimal("2.50"), "2.5", Decimal("25E-1"), 2.5], id="decimals"),
    pytest.param(
        moment_model, [NOON, NOON.astimezone(dt.timezone(dt.timedelta(hours=5))), NOON.isoformat()], id="times"
    ),
    pytest.param(slot_model, [Shelf.LEFT, "left", Shelf("left")], id="enumerations"),
]


class TestAKeySpelledOtherwise:
    """Each spelling of a key is the same row: for the log of one node, and between nodes."""

    @pytest.mark.parametrize(("make", "spellings"), SPELLED)
    def test_is_one_row(self, monkeypatch, make, spellings):
        model = make()
        with declared(model, using=["node0", "node1"]), two_nodes(monkeypatch, model) as (a, b):
            with a.at_work():
                for number, key in enumerate(spellings):
                    model(pk=key, label=f"a{number}").save()
                assert [row.local_key for row in TrackedResource.objects.all()] == [key_of(model.objects.get())]
                assert model.objects.count() == 1
            with b.at_work():
                model(pk=spellings[-1], label="b").save()
            exchange(a, b)
            in_step(a, b, model)
            for node, key in zip((a, b, a), spellings, strict=False):
                with node.at_work():
                    model(pk=key, label=f"edited at {node.alias}").save()
                exchange(a, b)
                in_step(a, b, model)
                assert [row["label"] for row in rows(b, model)] == [f"edited at {node.alias}"]
            with b.at_work():
                assert TrackedResource.objects.exclude(local_key=None).count() == 1
                model(pk=spellings[1]).delete()
            exchange(a, b)
            in_step(a, b, model)
            assert rows(a, model) == []

    def test_a_column_that_ignores_case(self, monkeypatch):
        class Word(models.Model):
            text = models.CharField(primary_key=True, max_length=20, db_collation=ignoring_case())
            label = models.CharField(max_length=20, blank=True)

            class Meta:
                app_label = "shapes"

        with declared(Word, using=["node0", "node1"]), two_nodes(monkeypatch, Word) as (a, b):
            with a.at_work():
                Word.objects.create(text="abc")
            exchange(a, b)
            with b.at_work():
                Word(text="ABC", label="edited").save()  # the row keeps the spelling of its key
                assert list(Word.objects.values_list("text", "label")) == [("abc", "edited")]
            exchange(a, b)
            in_step(a, b, Word)
            assert [row["label"] for row in rows(a, Word)] == ["edited"]

    def test_a_reference_in_another_spelling(self, monkeypatch):
        class Land(models.Model):
            code = models.CharField(primary_key=True, max_length=20, db_collation=ignoring_case())

            class Meta:
                app_label = "shapes"

        class Town(models.Model):
            land = models.ForeignKey(Land, models.CASCADE)

            class Meta:
                app_label = "shapes"

        with declared(Land, Town, using=["node0", "node1"]), two_nodes(monkeypatch, Land, Town) as (a, b):
            with a.at_work():
                Land.objects.create(code="Abc")
                Town.objects.create(land_id="ABC")
            exchange(a, b)
            with b.at_work():
                assert Town.objects.get().land == Land.objects.get()
            in_step(a, b, Land)

    def test_is_deleted_in_each_spelling(self, monkeypatch):
        rate = rate_model()
        with declared(rate, using=["node0", "node1"]), two_nodes(monkeypatch, rate) as (a, b):
            with a.at_work():
                rate(pk=Decimal(5)).save()
            exchange(a, b)
            with a.at_work():
                rate(pk=5).delete()
            exchange(a, b)
            in_step(a, b, rate)
            assert rows(b, rate) == []

    def test_keys_that_an_earlier_version_has_stored_are_respelled(self, monkeypatch):
        moment = moment_model()
        with declared(moment, using=["node0", "node1"]), two_nodes(monkeypatch, moment) as (a, b):
            with a.at_work():
                moment.objects.create(at=NOON)
            exchange(a, b)
            for node in (a, b):
                with node.at_work():
                    TrackedResource.objects.update(local_key=str(NOON))
                    assert respell_keys(registry.of_model(moment)) == 1
                    assert respell_keys(registry.of_model(moment)) == 0
            with a.at_work():
                moment(at=NOON, label="edited").save()
            exchange(a, b)
            in_step(a, b, moment)
            assert [row["label"] for row in rows(b, moment)] == ["edited"]

    def test_an_integer_that_the_application_converts(self, monkeypatch):
        """The attribute differs from what the column holds."""

        class Shifted(models.Model):
            code = ShiftedField(primary_key=True)
            label = models.CharField(max_length=20, blank=True)

            class Meta:
                app_label = "shapes"

        with declared(Shifted, using=["node0", "node1"]), two_nodes(monkeypatch, Shifted) as (a, b):
            with a.at_work():
                Shifted.objects.create(code=1005, label="one")
            exchange(a, b)
            with b.at_work():
                row = Shifted.objects.get(code=1005)
                row.label = "edited"
                row.save()
            exchange(a, b)
            in_step(a, b, Shifted)
            assert [(row["code"], row["label"]) for row in rows(a, Shifted)] == [(1005, "edited")]

    def test_is_one_target_of_references(self, monkeypatch):
        rates = rate_model()

        class Charge(models.Model):
            rate = models.ForeignKey(rates, models.CASCADE)

            class Meta:
                app_label = "shapes"

        both = ["node0", "node1"]
        with declared(rates, Charge, using=both), two_nodes(monkeypatch, rates, Charge) as (a, b):
            with a.at_work():
                rates(pk="2.5").save()
                Charge(rate_id=Decimal("2.5")).save()
                Charge(rate_id=2.50).save()
            exchange(a, b)
            in_step(a, b, rates)
            assert [row["rate_id"] for row in rows(b, Charge)] == [Decimal("2.50")] * 2
            assert level(a, b)


def composite_models():
    """Return a model with a key of two plain columns, and one whose key has a reference to a row with a local key."""

    class Seat(models.Model):
        pk = models.CompositePrimaryKey("hall", "number")
        hall = models.CharField(max_length=20)
        number = models.IntegerField()
        label = models.CharField(max_length=20, blank=True)

        class Meta:
            app_label = "shapes"

    class Pass(models.Model):
        pk = models.CompositePrimaryKey("player", "number")
        player = models.ForeignKey(Player, models.CASCADE)
        number = models.IntegerField()
        label = models.CharField(max_length=20, blank=True)

        class Meta:
            app_label = "shapes"

    return Seat, Pass


class TestKeysThatOnlyACollationTakesForEqual:
    """They are two rows; where the column of the application cannot hold both, one of them is deferred."""

    @pytest.mark.parametrize("keys", [("north", "North"), ("u", "ü"), ("a", "a "), ("strasse", "straße")])
    def test_both_are_kept_or_named(self, a, b, keys):
        for node, key in zip((a, b), keys, strict=True):
            with node.at_work():
                Zone.objects.create(code=key, label=f"of {node.alias}")
        exchange(a, b)
        for node in (a, b):
            with node.at_work():
                waiting = [entry.payload for entry in DeferredEntry.objects.all()]
                for other in (a, b):
                    label = f"of {other.alias}"
                    assert Zone.objects.filter(label=label).exists() or any(label in payload for payload in waiting)
                assert Zone.objects.count() + len(waiting) == 2
        if not waiting:
            in_step(a, b, Zone)
        with a.at_work():
            zone = Zone.objects.get(label="of node0")
            zone.label = "edited"
            zone.save()
        exchange(a, b)
        with b.at_work():
            assert Zone.objects.filter(label="of node1").exists()
            found = [*Zone.objects.values_list("label", flat=True), *(e.payload for e in DeferredEntry.objects.all())]
            assert any("edited" in text for text in found)


class TestCompositeKeys:
    @pytest.fixture
    def models(self):
        made = composite_models()
        with declared(*made, using=["node0", "node1"]):
            yield made

    def test_rows_are_created_edited_and_deleted_at_both_nodes(self, monkeypatch, models):
        seat, _ = models
        with two_nodes(monkeypatch, seat) as (a, b):
            with a.at_work():
                for number in range(3):
                    seat.objects.create(hall='the "north"', number=number, label="a")
                with pytest.raises(IntegrityError):
                    seat.objects.create(hall='the "north"', number=0)
            with b.at_work():
                seat.objects.create(hall='the "north"', number=0, label="b")
                seat.objects.bulk_create([seat(hall="south", number=number) for number in range(3)])
            exchange(a, b)
            with b.at_work():
                scan(registry.of_model(seat))  # the manager's bulk_create() is not captured
            exchange(a, b)
            in_step(a, b, seat)
            assert len(rows(a, seat)) == 6
            with a.at_work():
                chosen = seat.objects.get(pk=("south", 1))
                chosen.label = "edited"
                chosen.save()
                seat.objects.get(pk=("south", 2)).delete()
            exchange(a, b)
            in_step(a, b, seat)
            with b.at_work():
                assert seat.objects.get(hall="south", number=1).label == "edited"
                assert seat.objects.count() == 5

    def test_a_part_refers_to_a_row_with_another_key_at_each_node(self, monkeypatch, models):
        _, ticket = models
        with two_nodes(monkeypatch, Player, ticket) as (a, b):
            with b.at_work():
                Player.objects.create(name="taken")
            with a.at_work():
                box = Player.objects.create(name="of a")
                for number in range(3):
                    ticket.objects.create(player=box, number=number)
            exchange(a, b)
            with b.at_work():
                box_here = Player.objects.get(name="of a")
                assert ticket.objects.filter(player=box_here).count() == 3
                edited = ticket.objects.get(pk=(box_here.pk, 1))
                edited.label = "of b"
                edited.save()
                ticket.objects.create(player=Player.objects.get(name="taken"), number=7)
                ticket.objects.get(pk=(box_here.pk, 2)).delete()
            exchange(a, b)
            assert level(a, b)
            with a.at_work():
                labels = set(ticket.objects.values_list("player__name", "number", "label"))
                assert labels == {("of a", 0, ""), ("of a", 1, "of b"), ("taken", 7, "")}
                box.delete()
            exchange(a, b)
            assert level(a, b)
            with b.at_work():
                assert set(ticket.objects.values_list("player__name", "number")) == {("taken", 7)}

    def test_equal_keys_are_one_row(self, monkeypatch, models):
        seat, _ = models
        with two_nodes(monkeypatch, seat) as (a, b):
            for node in (a, b):
                with node.at_work():
                    seat.objects.create(hall="north", number=1, label=node.alias)
            exchange(a, b)
            in_step(a, b, seat)
            assert len(rows(a, seat)) == 1
