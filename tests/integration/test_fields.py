"""Every field type with a codec travels exactly."""

import datetime as dt
import json
import math
from decimal import Decimal
from uuid import UUID

import pytest
from django.test import override_settings
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

import sdata_sync
from sdata_sync.atom.payload import Payload
from sdata_sync.codecs import JSON_NULL, codec_of
from sdata_sync.exceptions import PayloadError
from sdata_sync.resources import camel_case, plural
from sdata_sync.sync.content.rows import read_rows

from ..shapes.models import EveryField

VALUES = {
    "char": ["", " padded ", "O'Neil & <sons>", "line\r\nfeed\ttab", "\u2028", "日本", "😀"],
    "text": ["", "a\rb", "  "],
    "slug": ["a-b_c"],
    "email": ["a@example.com"],
    "url": ["https://example.com/?a=1&b=2"],
    "choice": ["r"],
    "boolean": [True, False],
    "integer": [0, -1, 2**31 - 1],
    "big": [2**63 - 1, -(2**63)],
    "small": [0, 32767],
    "float": [0.1, 1e-320, 1.7976931348623157e308, -0.0, 1 / 3],
    "decimal": [Decimal("0"), Decimal("-12345678901234567890.0123456789"), Decimal("0.0000000001"), Decimal("1E+5")],
    "moment": [
        dt.datetime(2008, 10, 30, 14, 52, 3, 281_000, dt.UTC),
        dt.datetime(2008, 10, 30, 14, 52, 3, 123_456, dt.UTC),
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, dt.UTC),
    ],
    "date": [dt.date(1, 1, 1), dt.date(2024, 2, 29)],
    "time": [dt.time(0, 0), dt.time(23, 59, 59, 999_999)],
    "duration": [dt.timedelta(), dt.timedelta(days=-1, microseconds=1), dt.timedelta(days=400, seconds=4, microseconds=500_000)],
    "uuid": [UUID(int=0), UUID(int=2**128 - 1)],
    "ip": ["192.0.2.1", "2001:db8::1"],
    "binary": [b"", bytes(range(256))],
    "json": [{"b": [1, 2.5, None, True, "\u2028"], "a": {}}, [], "text", 0, False],
    "file": ["uploads/a b.pdf"],
}  # fmt: skip


@pytest.fixture
def resource():
    with sdata_sync.registered(EveryField) as resource:
        yield resource


def content(kind, instance) -> list:
    """The texts of the stored row."""
    return kind.encode(read_rows(kind, [str(instance.pk)])[str(instance.pk)])


def carried(resource, instance) -> dict:
    """What the other side reads: written as a payload, read as one."""
    template = resource.template
    xml = template.render("", content(resource, instance)).replace("xsi:nil", "nil")
    xml = xml.replace(" nil=", ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil=')
    return resource.decode(Payload.from_xml(xml))[0]


@pytest.mark.django_db
@pytest.mark.parametrize("name", list(VALUES))
def test_each_value_travels_exactly(resource, name):
    for value in VALUES[name]:
        saved = EveryField.objects.create(**{name: value})
        stored = EveryField.objects.get(pk=saved.pk)
        received = EveryField.objects.create(**carried(resource, stored))
        again = EveryField.objects.get(pk=received.pk)
        assert getattr(again, name) == getattr(stored, name)
        # The hash of the row that was saved is that of the row that was received.
        assert len({resource.etag(content(resource, row)) for row in (saved, received)}) == 1


def test_values_are_there_for_every_field():
    assert set(VALUES) == {field.name for field in EveryField._meta.concrete_fields if not field.primary_key}


@pytest.mark.django_db
def test_null_and_blank_are_kept_apart(resource):
    row = EveryField.objects.create(char="", text=None)
    values = carried(resource, row)
    assert values["char"] == ""
    assert values["text"] is None
    # A file field without a file is blank, never null.
    assert {name for name, value in values.items() if value is None} == set(VALUES) - {"char", "file"}


@given(st.floats(allow_nan=False))
def test_floats_round_trip(value):
    form = codec_of(EveryField._meta.get_field("float"))
    assert form.to_python(form.to_text(value)) == value


def test_not_a_number_round_trips():
    form = codec_of(EveryField._meta.get_field("float"))
    assert form.to_text(math.inf) == "INF"
    assert math.isnan(form.to_python(form.to_text(math.nan)))


@given(st.timedeltas())
def test_durations_round_trip(value):
    form = codec_of(EveryField._meta.get_field("duration"))
    assert form.to_python(form.to_text(value)) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_json_round_trips_whatever_the_order(value):
    form = codec_of(EveryField._meta.get_field("json"))
    assert form.to_python(form.to_text(value)) == (JSON_NULL if value is None else value)
    shuffled = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert form.to_text(shuffled) == form.to_text(value)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("decimal", Decimal("1.5"), Decimal("1.50")),
        ("decimal", "1.5", Decimal("1.5")),
        ("decimal", Decimal("-0"), Decimal(0)),
        ("moment", dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 13, tzinfo=dt.timezone(dt.timedelta(hours=1)))),
        ("binary", b"x", memoryview(b"x")),
        ("uuid", UUID(int=5), str(UUID(int=5))),
        ("boolean", True, 1),
    ],
)  # fmt: skip
def test_equal_values_have_equal_texts(name, one, other):
    form = codec_of(EveryField._meta.get_field(name))
    assert form.to_text(one) == form.to_text(other)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns"])
def test_naive_times_are_those_of_the_time_zone(zone):
    form = codec_of(EveryField._meta.get_field("moment"))
    with override_settings(USE_TZ=False, TIME_ZONE=zone):
        noon = dt.datetime(2024, 7, 1, 12, 0, 0, 1)
        text = form.to_text(noon)
        assert form.to_python(text) == noon
    assert form.to_python(text) == timezone.make_aware(noon, __import__("zoneinfo").ZoneInfo(zone))


def test_microseconds_survive():
    """Ruling 8 asks for three fraction digits at most; a value that has more would not be the same afterwards."""
    form = codec_of(EveryField._meta.get_field("moment"))
    assert form.to_text(dt.datetime(2024, 1, 1, 0, 0, 0, 123_000, dt.UTC)) == "2024-01-01T00:00:00.123Z"
    assert form.to_text(dt.datetime(2024, 1, 1, tzinfo=dt.UTC)) == "2024-01-01T00:00:00Z"
    exact = dt.datetime(2024, 1, 1, 0, 0, 0, 123_456, dt.UTC)
    assert form.to_python(form.to_text(exact)) == exact


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("boolean", "yes", "expected true or false, received 'yes'"),
        ("integer", "1.5", "expected an integer"),
        ("integer", "١", "expected an integer"),
        ("float", "much", "expected a number"),
        ("decimal", "NaN", "expected a number with at most 10 decimal places"),
        ("decimal", "1,5", "expected a number with at most 10 decimal places"),
        ("moment", "yesterday", "expected a date and time"),
        ("date", "30.10.2008", "expected a date like 2008-10-30"),
        ("time", "noon", "expected a time"),
        ("duration", "P", "expected a duration"),
        ("uuid", "5", "expected a uuid"),
        ("binary", "*", "expected base64"),
        ("json", "{", "expected JSON"),
    ],
)
def test_what_cannot_be_read_says_what_was_expected(resource, name, text, expected):
    payload = Payload.from_xml(f"<everyField><{name}>{text}</{name}></everyField>")
    with pytest.raises(PayloadError) as caught:
        resource.decode(payload)
    assert expected in str(caught.value)
    assert caught.value.payload_path == f"everyField/{name}"


def test_elements_where_text_is_expected(resource):
    with pytest.raises(PayloadError, match="expected text, received elements"):
        resource.decode(Payload.from_xml("<everyField><char><b/></char></everyField>"))


@pytest.mark.parametrize(
    ("name", "camel"),
    [("credit_limit", "creditLimit"), ("SalesOrder", "salesOrder"), ("name", "name"), ("a_b_c", "aBC")],
)
def test_names(name, camel):
    assert camel_case(name) == camel


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("account", "accounts"),
        ("category", "categories"),
        ("day", "days"),
        ("box", "boxes"),
        ("address", "addresses"),
    ],
)
def test_plurals(noun, many):
    assert plural(noun) == many
