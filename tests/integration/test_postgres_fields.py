"""Arrays and ranges of PostgreSQL travel exactly."""

import datetime as dt
from decimal import Decimal

import pytest
from django.db import connection, models

import sdata_sync
from sdata_sync.atom.payload import Payload
from sdata_sync.sync.content.rows import read_rows

from ..databases import declared

pytestmark = pytest.mark.django_db(transaction=True)

VALUES = [
    {
        "names": ["a,b", 'quo"te', "", None],
        "grid": [[1, 2], [3, 4]],
        "days": (dt.date(2024, 1, 1), dt.date(2024, 2, 1)),
    },
    {"names": [], "grid": [], "prices": (Decimal("1.50"), None), "days": (None, None)},
    {"names": None, "moments": (dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, tzinfo=dt.UTC))},
    {"names": ["ünï", "\u2028"], "numbers": (1, 9), "amounts": [Decimal("0.10"), None]},
    {"numbers": (5, 5)},
]


@pytest.fixture
def model():
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL only")
    from django.contrib.postgres import fields

    class Rich(models.Model):
        names = fields.ArrayField(models.CharField(max_length=20, null=True), null=True)
        grid = fields.ArrayField(fields.ArrayField(models.IntegerField()), null=True)
        amounts = fields.ArrayField(models.DecimalField(max_digits=8, decimal_places=2, null=True), null=True)
        numbers = fields.IntegerRangeField(null=True)
        prices = fields.DecimalRangeField(null=True)
        days = fields.DateRangeField(null=True)
        moments = fields.DateTimeRangeField(null=True)

        class Meta:
            app_label = "shapes"
            managed = False

    with declared(Rich):
        yield Rich


def texts_in_sql():
    """Return the columns of the rows as PostgreSQL writes them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT names::text, grid::text, amounts::text, numbers::text, prices::text, days::text, moments::text"
            " FROM shapes_rich ORDER BY id"
        )
        return cursor.fetchall()


@pytest.mark.parametrize("values", VALUES)
def test_each_value_travels_exactly(model, values):
    with sdata_sync.registered(model) as kind:
        sent = model.objects.create(**values)
        row = read_rows(kind, [str(sent.pk)])[str(sent.pk)]
        xml = kind.template.render("", kind.encode(row)).replace("xsi:nil", "nil")
        xml = xml.replace(" nil=", ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil=')
        received = model.objects.create()
        stored = kind.decode(Payload.from_xml(xml)).values
        kind.rows().filter(pk=received.pk).update(
            **{name: kind.by_column[name].written(value) for name, value in stored.items()}
        )
        there, here = texts_in_sql()
        assert there == here
        again = read_rows(kind, [str(received.pk)])[str(received.pk)]
        assert kind.encode(again) == kind.encode(row)
