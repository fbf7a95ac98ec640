"""A model and its parents in multi-table inheritance, registered together: each row of each table is a resource."""

import datetime as dt
from decimal import Decimal

import pytest
from django.db import connections, models

import sdata_sync
from sdata_sync.checks import check_resources
from sdata_sync.models import DeferredEntry, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan

from ..databases import declared
from ..many_nodes import two_nodes
from ..shapes.models import Bill, Document, PaidBill, Place, Restaurant
from ..talk import level, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("inheritance"),
]


def exchange(a, b):
    for _ in range(2):
        push(a, b)
        push(b, a)


def table(node, model):
    """Return the rows of one table by SQL, without the keys that the database has made."""
    fields = [
        field
        for field in model._meta.local_concrete_fields
        if not (isinstance(field, models.AutoField) or field.is_relation)
    ]
    quote = connections[node.alias].ops.quote_name
    with connections[node.alias].cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(quote(f.column) for f in fields)} FROM {quote(model._meta.db_table)}")
        return sorted(cursor.fetchall())


def in_step(a, b, *tables):
    for node in (a, b):
        with node.at_work():
            assert [entry.reason for entry in DeferredEntry.objects.all()] == []
    for model in tables:
        assert table(a, model) == table(b, model)
    for node in (a, b):
        with node.at_work():
            for kind in registry:
                found = scan(kind)
                assert (found.new, found.changed, found.deleted) == (0, 0, 0), kind.name
    assert level(a, b)


class TestAParentWithItsChild:
    @pytest.fixture(params=["parent first", "child first"])
    def nodes(self, monkeypatch, request):
        models = [Place, Restaurant] if request.param == "parent first" else [Restaurant, Place]
        with two_nodes(monkeypatch, *models) as nodes:
            with nodes[1].at_work():
                Place.objects.create(name="x").delete()  # keys are not those of the first node
            yield nodes

    def test_rows_of_both_kinds(self, a, b):
        assert check_resources(None) == []
        with a.at_work():
            Place.objects.create(name="square")
            Restaurant.objects.create(name="Ritz", stars=3)
        exchange(a, b)
        in_step(a, b, Place, Restaurant)
        with b.at_work():
            ritz = Restaurant.objects.get()
            assert (ritz.name, ritz.stars) == ("Ritz", 3)
            ritz.name, ritz.stars = "The Ritz", 5
            ritz.save()
            Place.objects.filter(name="square").get().delete()
        exchange(a, b)
        in_step(a, b, Place, Restaurant)
        with a.at_work():
            assert Restaurant.objects.values_list("name", "stars").get() == ("The Ritz", 5)

    def test_each_column_travels_once(self, a, b):
        with a.at_work():
            restaurants, places = registry.of_kind("restaurants"), registry.of_kind("places")
            assert restaurants.property_names == ["stars", "placePtr"]
            assert places.property_names == ["name"]
            Restaurant.objects.create(name="Ritz", stars=3)
        exchange(a, b)
        with a.at_work():
            before = dict(TrackedResource.objects.values_list("kind", "tick"))
            ritz = Restaurant.objects.get()
            ritz.stars = 4
            ritz.save()
        exchange(a, b)
        with a.at_work():
            after = dict(TrackedResource.objects.values_list("kind", "tick"))
        assert after["places"] == before["places"]
        assert after["restaurants"] > before["restaurants"]
        in_step(a, b, Place, Restaurant)

    def test_a_place_becomes_a_restaurant_and_is_one_no_more(self, a, b):
        with a.at_work():
            place = Place.objects.create(name="Ritz")
        exchange(a, b)
        with b.at_work():
            here = Place.objects.get()
            restaurant = Restaurant(place_ptr=here, stars=2)
            restaurant.__dict__.update(name=here.name)
            restaurant.save()
        exchange(a, b)
        in_step(a, b, Place, Restaurant)
        with a.at_work():
            assert Restaurant.objects.get().place_ptr_id == place.pk
            Restaurant.objects.get().delete(keep_parents=True)
        exchange(a, b)
        in_step(a, b, Place, Restaurant)
        with b.at_work():
            assert (Place.objects.count(), Restaurant.objects.count()) == (1, 0)

    @pytest.mark.parametrize("model", [Place, Restaurant])
    def test_deletions_of_whole_rows(self, a, b, model):
        with a.at_work():
            for number in range(3):
                Restaurant.objects.create(name=f"r{number}", stars=number)
        exchange(a, b)
        with b.at_work():
            model.objects.get(name="r1").delete()
        exchange(a, b)
        in_step(a, b, Place, Restaurant)
        with a.at_work():
            assert sorted(Restaurant.objects.values_list("name", flat=True)) == ["r0", "r2"]
            assert Place.objects.count() == 2

    def test_concurrent_edits_of_the_two_tables_do_not_conflict(self, a, b):
        with a.at_work():
            Restaurant.objects.create(name="Ritz", stars=3)
        exchange(a, b)
        with a.at_work():
            Place.objects.filter(name="Ritz").get().save()
            place = Place.objects.get()
            place.name = "Savoy"
            place.save()
        with b.at_work():
            ritz = Restaurant.objects.get()
            ritz.stars = 1
            ritz.save()
        exchange(a, b)
        in_step(a, b, Place, Restaurant)
        with b.at_work():
            assert Restaurant.objects.values_list("name", "stars").get() == ("Savoy", 1)


class TestThreeLevels:
    @pytest.mark.parametrize(
        "shared", [(Document, PaidBill), (Document, Bill, PaidBill), (Bill, PaidBill), (PaidBill, Document)]
    )
    def test_some_of_the_levels(self, monkeypatch, shared):
        with two_nodes(monkeypatch, *shared) as (a, b):
            assert check_resources(None) == []
            with a.at_work():
                PaidBill.objects.create(number=1, title="One", amount=Decimal("1.50"), paid_on=dt.date(2024, 1, 1))
                PaidBill.objects.create(number=2, title="Two", amount=Decimal("2.50"), paid_on=dt.date(2024, 2, 2))
            exchange(a, b)
            in_step(a, b, Document, Bill, PaidBill)
            with b.at_work():
                bill = PaidBill.objects.get(number=1)
                bill.title, bill.amount, bill.paid_on = "Uno", Decimal("9.00"), dt.date(2025, 1, 1)
                bill.save()
                PaidBill.objects.get(number=2).delete()
            exchange(a, b)
            in_step(a, b, Document, Bill, PaidBill)
            with a.at_work():
                assert PaidBill.objects.values_list("title", "amount").get() == ("Uno", Decimal("9.00"))


def test_a_save_that_replaces_columns_of_the_parent(monkeypatch):
    """They stay as the parent's own version has them: the application's save() of the child makes no change of it."""

    class Item(models.Model):
        name = models.CharField(max_length=20)
        modified = models.DateTimeField(auto_now=True)

        class Meta:
            app_label = "shapes"

    class Gadget(Item):
        weight = models.IntegerField(default=0)

        class Meta:
            app_label = "shapes"

        def save(self, *args, **kwargs):
            self.name = self.name.upper()
            super().save(*args, **kwargs)

    with declared(Item, Gadget, using=["node0", "node1"]), two_nodes(monkeypatch, Item, Gadget) as (a, b):
        with a.at_work():
            Gadget.objects.create(name="lamp", weight=1)
            models.QuerySet(Item).update(name="lamp")  # as another program has it
            for kind in registry:
                scan(kind)
        exchange(a, b)
        in_step(a, b, Item, Gadget)
        with b.at_work():
            assert Gadget.objects.values_list("name", "weight").get() == ("lamp", 1)


def test_the_check_refuses_columns_of_a_registered_parent():
    class RestaurantSync(sdata_sync.SyncResource):
        fields = ["name", "stars"]

    with sdata_sync.registered(Place), sdata_sync.registered(Restaurant, RestaurantSync):
        [error] = check_resources(None)
        assert error.id == "sdata_sync.E018"
        assert "names name, which the rows of shapes.Place have" in error.msg
