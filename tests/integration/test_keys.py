"""A primary key that the database does not make is the key of the row at every node."""

import datetime as dt
from decimal import Decimal

import pytest
from django.db.models.signals import post_save

from sdata_sync.models import ConflictRecord, DeferredEntry, TrackedResource

from ..many_nodes import two_nodes
from ..shapes.models import Coupon, PaidBill, Zone, ZoneProfile
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
