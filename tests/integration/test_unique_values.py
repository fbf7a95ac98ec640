"""Which row has a unique value of a received row: unique fields and constraints of every kind."""

import pytest
from django.db import connection, models
from django.db.models.functions import Lower

from sdata_sync.resources import find_by_unique_values

from ..databases import declared

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def model():
    if not (connection.features.supports_expression_indexes and connection.features.supports_partial_indexes):
        pytest.skip("the database has no such constraints")

    class Subscriber(models.Model):
        number = models.IntegerField(null=True, unique=True)
        email = models.CharField(max_length=50)
        list_name = models.CharField(max_length=20, null=True)
        rank = models.IntegerField(null=True)
        is_active = models.BooleanField(default=True)
        seat = models.IntegerField(null=True)

        class Meta:
            app_label = "shapes"
            managed = False
            constraints = [
                models.UniqueConstraint(Lower("email").desc(), "list_name", name="subscriber_email"),
                models.UniqueConstraint(fields=["rank"], condition=models.Q(is_active=True), name="subscriber_rank"),
            ]

    with declared(Subscriber):
        yield Subscriber


@pytest.fixture
def stored(model):
    return model.objects.create(number=1, email="Ann@example.com", list_name="news", rank=1)


@pytest.mark.parametrize(
    ("values", "is_found"),
    [
        ({"number": 1, "email": "x"}, True),
        ({"number": 2, "email": "x"}, False),
        ({"email": "ANN@EXAMPLE.COM", "list_name": "news"}, True),
        ({"email": "ann@example.com", "list_name": "other"}, False),
        ({"email": "ann@example.com", "list_name": None}, False),
        ({"email": "x", "rank": 1}, True),
        ({"email": "x", "rank": 1, "is_active": False}, False),
        ({"email": "x", "rank": None}, False),
    ],
)
def test_it_is_found(model, stored, values, is_found):
    assert find_by_unique_values(model, model(**values)) == (stored if is_found else None)


def test_null_is_a_value_if_the_constraint_says_so(model):
    constraint = models.UniqueConstraint(fields=["seat"], nulls_distinct=False, name="subscriber_seat")
    model._meta.constraints.append(constraint)
    stored = model.objects.create(email="a")
    assert find_by_unique_values(model, model(email="b")) == stored
    assert find_by_unique_values(model, model(email="b", seat=1)) is None
