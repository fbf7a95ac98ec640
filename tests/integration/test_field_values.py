"""The values that Django's own tests give its fields: equal columns, or deferred where the target's type cannot hold one.

The databases of the two nodes may be of two makers: ``make test-all`` runs these tests with all pairs of them.
"""

import datetime as dt
import json
import math
import uuid
from decimal import Decimal

import pytest
from django.db import DatabaseError, connections, models, transaction

from sdata_sync.models import DeferredEntry
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan

from ..databases import declared
from ..many_nodes import two_nodes
from ..talk import level, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("field values"),
]

UTC = dt.UTC
LONG = "This is a long piece of text.\nIt contains line breaks.\r\nSeveral of them.\n\nThe end.\n"
TEXTS = ["", " ", "Test Char Data", "None", "NULL", "null", "0", " padded ", "tab\tand\nline", "<&>'\"]]>", "ÄÖÜ ß é é",
         "日本語", "🙂👩‍👩‍👧", "\u200fשלום", "a" * 30, "🙂" * 30]  # fmt: skip
JSON = [None, True, False, 0, -1, 1.5, 1e100, "", "null", "ÄÖ 🙂", [], {}, [[]], {"": None}, {"b": 1, "a": [1, {"c": None}]},
        [1, "two", None, {"three": 3}], 12345678901234567890, {"a\"b\\c/d": "\t"}]  # fmt: skip

#: By column: its field, and values besides null.
COLUMNS = {
    "binary": (models.BinaryField, {}, [b"", b"\x00\x01\xff", b"Test Char Data", bytes(range(256))]),
    "boolean": (models.BooleanField, {}, [True, False]),
    "char": (models.CharField, {"max_length": 30}, TEXTS),
    "choice": (models.CharField, {"max_length": 3, "choices": [("a", "A")]}, ["a", "zzz", ""]),
    "date": (models.DateField, {}, [dt.date(2006, 6, 16), dt.date(1, 1, 1), dt.date(1000, 1, 1), dt.date(9999, 12, 31)]),
    "datetime": (models.DateTimeField, {}, [
        dt.datetime(2006, 6, 16, 10, 42, 37, tzinfo=UTC), dt.datetime(2006, 6, 16, 10, 42, 37, 1, tzinfo=UTC),
        dt.datetime(2006, 6, 16, 10, 42, 37, 999_999, tzinfo=UTC), dt.datetime(1970, 1, 1, tzinfo=UTC),
        dt.datetime(1000, 1, 1, tzinfo=UTC), dt.datetime(9999, 12, 30, tzinfo=UTC),
        dt.datetime(2021, 3, 28, 2, 30, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))]),
    "decimal": (models.DecimalField, {"max_digits": 5, "decimal_places": 3},
                [Decimal("12.345"), Decimal("-12.345"), Decimal("0.0"), Decimal("99.999"), Decimal("1")]),
    "wide": (models.DecimalField, {"max_digits": 38, "decimal_places": 10},
             [Decimal(0), Decimal("1234567890123456789012345678.0123456789"), Decimal("-0.0000000001")]),
    "duration": (models.DurationField, {}, [dt.timedelta(), dt.timedelta(days=1), dt.timedelta(seconds=1, microseconds=1),
                 dt.timedelta(days=-1, seconds=3), dt.timedelta(days=106751991), -dt.timedelta(days=106751991)]),
    "email": (models.EmailField, {}, ["hovercraft@example.com", "", "nobody"]),
    "file": (models.FileField, {}, ["file:///foo/bar/whiz.txt", "a b/ü.pdf"]),
    "path": (models.FilePathField, {}, ["/foo/bar/whiz.txt", ""]),
    "float": (models.FloatField, {}, [-12.345, 0.0, 0.1, 1 / 3, 1e-300, 1.7976931348623157e308, 5e-324, 2.0**53 + 2]),
    "ip": (models.GenericIPAddressField, {}, ["192.0.2.1", "fe80:1424:2223:6cff:fe8a:2e8a:2151:abcd", "::ffff:1.2.3.4"]),
    "integer": (models.IntegerField, {}, [123456789, -123456789, 0, 2**31 - 1, -(2**31)]),
    "big": (models.BigIntegerField, {}, [0, 2**63 - 1, -(2**63)]),
    "small": (models.SmallIntegerField, {}, [12, -12, 0, 32767, -32768]),
    "positive": (models.PositiveIntegerField, {}, [123456789, 0, 2**31 - 1]),
    "positive_big": (models.PositiveBigIntegerField, {}, [0, 2**63 - 1]),
    "positive_small": (models.PositiveSmallIntegerField, {}, [12, 0, 32767]),
    "json": (models.JSONField, {}, JSON),
    "slug": (models.SlugField, {}, ["this-is-a-slug", ""]),
    "text": (models.TextField, {}, [*TEXTS, LONG, LONG * 2000]),
    "time": (models.TimeField, {}, [dt.time(10, 42, 37), dt.time(0), dt.time(23, 59, 59, 999_999)]),
    "url": (models.URLField, {}, ["http://example.com/ä?x=1&y=2", ""]),
    "uuid": (models.UUIDField, {}, [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.uuid4()]),
}  # fmt: skip


def values_model():
    fields = {name: field(null=True, **options) for name, (field, options, _) in COLUMNS.items()}
    meta = type("Meta", (), {"app_label": "shapes"})
    marker = models.CharField(max_length=50)
    return type("Values", (models.Model,), {"__module__": __name__, "Meta": meta, "marker": marker, **fields})


def fill(node, model):
    """Write one row for each value; return the markers of those that the node's own database takes."""
    written = []
    with node.at_work():
        model.objects.create(marker=f"{node.alias} nothing")
        for name, (_, _, values) in COLUMNS.items():
            for number, value in enumerate(values):
                marker = f"{node.alias} {name} {number}"
                given = models.Value(None, models.JSONField()) if name == "json" and value is None else value
                try:
                    with transaction.atomic(using=node.alias):
                        model(marker=marker, **{name: given}).save()
                except (DatabaseError, OverflowError):
                    continue  # this database cannot hold the value at all
                written.append(marker)
    return written


def rows(node, model):
    """Return the rows by marker, as Django reads them from this database; JSON by SQL, which tells its null from null."""
    connection = connections[node.alias]
    as_text = {"sqlite": "{}", "postgresql": "{}::text", "mysql": "CAST({} AS CHAR)"}[connection.vendor]
    with node.at_work():
        found = {row.pop("marker"): row for row in model.objects.values()}
    with connection.cursor() as cursor:
        quote = connection.ops.quote_name
        selected = f"marker, {as_text.format(quote('json'))}"
        cursor.execute(f"SELECT {selected} FROM {quote(model._meta.db_table)}")
        for marker, text in cursor.fetchall():
            found[marker]["json"] = None if text is None else ("JSON", json.loads(text))
    for row in found.values():
        del row["id"]
        row["binary"] = None if row["binary"] is None else bytes(row["binary"])
    return found


def is_same(one, other):
    return one == other or (isinstance(one, float) and math.isclose(one, other, rel_tol=0, abs_tol=0))


@pytest.mark.parametrize("way", ["a to b", "b to a"])
def test_each_value_of_each_field(monkeypatch, way):
    model = values_model()
    with declared(model, using=["node0", "node1"]), two_nodes(monkeypatch, model) as nodes:
        source, target = nodes if way == "a to b" else reversed(nodes)
        markers = fill(source, model)
        with source.at_work():
            scan(registry.of_model(model))
        push(source, target)
        here, there = rows(source, model), rows(target, model)
        with target.at_work():
            deferred = {entry.payload: entry.reason for entry in DeferredEntry.objects.all()}
        differing = []
        for marker in markers:
            if marker not in there:
                reason = next((reason for payload, reason in deferred.items() if f">{marker}<" in payload), None)
                assert reason, f"{marker} is neither a row nor a deferred entry"
                continue
            differing += [
                (marker, name, value, there[marker][name])
                for name, value in here[marker].items()
                if not is_same(value, there[marker][name])
            ]
        assert differing == []
        if connections[source.alias].vendor == connections[target.alias].vendor:
            assert deferred == {}
            assert level(source, target)
        assert len(there) + len(deferred) == len(here)
