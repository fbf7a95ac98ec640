"""Codecs: write the value of a database column as text, and read the text back exactly.

A codec works with what the column holds, never with attributes of instances: a descriptor, a ``from_db_value`` or a
``pre_save`` of the application takes no part. ``stored_field`` returns the field that reads and writes the column so.
"""

import base64
import binascii
import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models, router
from django.db.models import F
from django.db.models.expressions import Col
from django.utils import timezone

from .atom.text import parse_datetime

Field: TypeAlias = "models.Field[Any, Any]"
FieldClass: TypeAlias = "type[models.Field[Any, Any]]"


@dataclass(frozen=True, slots=True)
class Codec:
    """Write a value that is not null as text, and read that text.

    ``to_text`` returns equal texts for equal values, for example for a time in another zone or a dictionary in another
    order, because the etag is a hash of these texts. ``to_python`` raises ``ValueError`` with the expected form.
    """

    to_text: Callable[[Any], str]
    to_python: Callable[[str], Any]


_registered: dict[FieldClass, Callable[[Any], Codec]] = {}


def register_codec(field_class: FieldClass, codec: Codec | Callable[[Any], Codec]) -> None:
    """Use ``codec`` for all fields of ``field_class`` and of its subclasses.

    ``codec`` is a ``Codec``, or a function that returns one for a field. Its values are those that ``values_list()``
    returns for the field and ``update()`` accepts. Call it before the registration of a model that has such a field.

    Raises:
        ImproperlyConfigured: ``field_class`` is no class of model fields, or ``codec`` is neither of the two.
    """
    if not (isinstance(field_class, type) and issubclass(field_class, models.Field)):
        raise ImproperlyConfigured(f"register_codec() expects a class of model fields, received {field_class!r}.")
    if isinstance(codec, Codec):
        registered = codec
        _registered[field_class] = lambda field: registered
    elif callable(codec):
        _registered[field_class] = codec
    else:
        raise ImproperlyConfigured(f"register_codec() expects a Codec or a function that returns one, got {codec!r}.")


def unregister_codec(field_class: FieldClass) -> None:
    """Forget the registered codec of ``field_class``, if there is one."""
    _registered.pop(field_class, None)


def codec_of(field: Field) -> Codec | None:
    """Return the codec of ``field``, or ``None`` if no codec is known that is exact for it."""
    registered = _registered_for(field)
    if registered is not None:
        return registered(field)
    base = _own_class(field)
    if base is not type(field) and not _stores_like(field, base):
        return None
    return _make(field)


def linked_field(field: Field) -> Field:
    """Return the field that ``field`` takes its values from: the end of a chain of foreign keys, else ``field``.

    The primary key of a child model is a link to its parent model, so the values are those of the parent's key.
    """
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return field


def stored_field(field: Field) -> Field:
    """Return the field that reads and writes the column of ``field`` without conversions of the application.

    It is ``field`` itself if its class is one of Django's or has a registered codec. Otherwise it is a field of the
    nearest class of Django's with the same options.
    """
    if _registered_for(field) is not None:
        return field
    if isinstance(field, models.JSONField):
        return _copy(field, _StoredJSONField, encoder=None, decoder=None)
    base = _own_class(field)
    return field if base is type(field) else _copy(field, base)


def _registered_for(field: Field) -> Callable[[Any], Codec] | None:
    found = (_registered[base] for base in type(field).__mro__ if base in _registered) if _registered else iter(())
    return next(found, None)


def _make(field: Field) -> Codec | None:
    """Return the codec for the nearest of Django's classes that ``field`` is of; ``None`` if that class has none."""
    for kinds, make in _CODECS:
        if isinstance(field, kinds):
            return make(field)
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(field).__mro__}
    return next((make(field) for name, make in _POSTGRES_CODECS.items() if name in names), None)


def _own_class(field: Field) -> FieldClass:
    """Return the nearest class of ``field`` that is part of Django."""
    for base in type(field).__mro__:
        if base.__module__.startswith("django.") and issubclass(base, models.Field):
            return base
    return models.Field


def _stores_like(field: Field, base: FieldClass) -> bool:
    """Return True if a column of ``field`` is read and written as one of ``base``, without functions of SQL around."""
    wrapping = ("select_format", "get_placeholder", "get_placeholder_sql")
    own = type(field)
    changed = [
        name
        for name in (*wrapping, "db_type", "get_internal_type")
        if getattr(own, name, None) is not getattr(base, name, None)
    ]
    if not set(wrapping).isdisjoint(changed):
        return False
    return not changed or field.get_internal_type() == _copy(field, base).get_internal_type()


def _copy(field: Field, base: FieldClass, **changes: Any) -> Field:
    """Return a field of the class ``base`` with the options of ``field``."""
    copied = copy.copy(field)
    copied.__class__ = base  # as Field.__copy__ does it: the constructor of a subclass may take other arguments
    copied.__dict__.update(changes)
    copied.__dict__.pop("cached_col", None)  # the column with the converters of ``field``
    return copied


class StoredColumn(F):
    """Select a column with the converters of its ``stored_field`` alone."""

    def __init__(self, name: str, field: Field) -> None:
        super().__init__(name)
        self._field = field

    def resolve_expression(self, *args: Any, **kwargs: Any) -> Any:
        """Return the column with ``field`` in the place of the model's own field."""
        column: Any = super().resolve_expression(*args, **kwargs)
        return Col(column.alias, self._field, self._field)


class _StoredJSONField(models.JSONField):
    """Read a column of JSON so that the JSON null differs from the SQL null."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the value; ``Value(None, JSONField())`` for the JSON null."""
        found = super().from_db_value(value, expression, connection)
        return JSON_NULL if found is None and value is not None else found


#: The JSON null, for a column that may hold the SQL null too.
JSON_NULL = models.Value(None, models.JSONField())


def stored_value(field: Field, value: Any) -> Any:
    """Return what the column of ``field`` holds for ``value``, an attribute of an instance that is not ``None``.

    ``field`` is one whose ``stored_field`` is another field.
    """
    if isinstance(field, models.JSONField):
        return value if isinstance(value, models.Value) else json.loads(json.dumps(value, cls=field.encoder))
    return field.get_prep_value(value)


def attribute_value(field: Field, value: Any) -> Any:
    """Return the attribute of an instance for ``value``, which the column of ``field`` holds and is not ``None``.

    ``field`` is one whose ``stored_field`` is another field.
    """
    if isinstance(field, models.JSONField):
        plain = isinstance(value, models.Value) or field.decoder is None
        return value if plain else json.loads(json.dumps(value), cls=field.decoder)
    convert = getattr(field, "from_db_value", None)
    return value if convert is None else convert(value, field.cached_col, None)


def _plain_text(value: Any) -> str:
    if type(value) is str:
        return value
    # The text of a member of an enumeration of texts is its value; its str() may be its name.
    return str.__str__(value) if isinstance(value, str) else str(value)


def _text(field: Any) -> Codec:
    return Codec(_plain_text, str)


def _stripped(read: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    def to_python(text: str) -> Any:
        try:
            return read(text.strip())
        except (
            ValueError,
            TypeError,
            OverflowError,
            InvalidOperation,
            RecursionError,
            binascii.Error,
        ) as error:
            raise ValueError(f"expected {expected}, received {text.strip()[:80]!r}") from error

    return to_python


def _boolean(field: Any) -> Codec:
    values = {"true": True, "1": True, "false": False, "0": False}

    def read(text: str) -> bool:
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]

    return Codec(lambda value: "true" if value else "false", _stripped(read, "true or false"))


def _integer(field: Any) -> Codec:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
            raise ValueError(text)
        return int(text)

    return Codec(lambda value: str(int(value)), _stripped(read, "an integer"))


def _float(field: Any) -> Codec:
    special = {"INF": math.inf, "-INF": -math.inf, "NaN": math.nan}
    names = {"inf": "INF", "-inf": "-INF", "nan": "NaN"}

    def read(text: str) -> float:
        return special[text] if text in special else float(text)

    def write(value: float) -> str:
        text = repr(float(value) + 0.0)  # not every database tells the two zeros apart
        return names.get(text, text)

    return Codec(write, _stripped(read, "a number"))


def _decimal(field: Any) -> Codec:
    places = field.decimal_places
    quantum = None if places is None else Decimal(1).scaleb(-places)

    def write(value: Any) -> str:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
        try:
            exact = number if quantum is None else number.quantize(quantum)
        except InvalidOperation:  # more digits than the context has; such a value is exact already
            exact = number
        return format(exact if exact else abs(exact), "f")

    def read(text: str) -> Decimal:
        number = Decimal(text)
        # An exponent is a few characters, its digits may be more than there is memory for.
        if not number.is_finite() or abs(number.adjusted()) > 1000:
            raise ValueError(text)
        if Decimal(write(number)) != number:  # the column would round it
            raise ValueError(text)
        return number

    expected = "a decimal number" if places is None else f"a number with at most {places} decimal places"
    return Codec(write, _stripped(read, expected))


def _aware(value: datetime) -> datetime:
    return timezone.make_aware(value, timezone.get_default_timezone()) if timezone.is_naive(value) else value


def _datetime(field: Any) -> Codec:
    def write(value: Any) -> str:
        moment = value if isinstance(value, datetime) else field.to_python(value)
        moment = _aware(moment).astimezone(UTC).replace(tzinfo=None)
        # Three digits where they are enough, which every client reads; never fewer than the value has.
        precision = "seconds" if not moment.microsecond else "auto"
        if moment.microsecond and moment.microsecond % 1000 == 0:
            precision = "milliseconds"
        return f"{moment.isoformat(timespec=precision)}Z"

    def read(text: str) -> datetime:
        moment = parse_datetime(text)
        if settings.USE_TZ:
            return moment
        return timezone.make_naive(moment, timezone.get_default_timezone())

    return Codec(write, _stripped(read, "a date and time like 2008-10-30T14:52:03.281Z"))


def _date(field: Any) -> Codec:
    def read(text: str) -> date:
        # Some clients write a date as the midnight at which it begins.
        return date.fromisoformat(text.partition("T")[0].removesuffix("Z"))

    def write(value: Any) -> str:
        day: date = field.to_python(value)
        return day.isoformat()

    return Codec(write, _stripped(read, "a date like 2008-10-30"))


def _time(field: Any) -> Codec:
    def read(text: str) -> time:
        moment = time.fromisoformat(text)
        if moment.tzinfo is not None and moment.utcoffset():
            raise ValueError(text)
        return moment.replace(tzinfo=None)

    def write(value: Any) -> str:
        moment: time = field.to_python(value)
        return moment.isoformat()

    return Codec(write, _stripped(read, "a time like 14:52:03"))


_DURATION = re.compile(
    r"(?P<sign>-)?P(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,6})\d*)?S)?)?",
    re.ASCII,
)


def _duration(field: Any) -> Codec:
    def write(value: timedelta) -> str:
        sign = "-" if value < timedelta() else ""
        value = abs(value)
        fraction = f".{value.microseconds:06}" if value.microseconds else ""
        return f"{sign}P{value.days}DT{value.seconds}{fraction}S"

    def read(text: str) -> timedelta:
        match = _DURATION.fullmatch(text)
        if match is None or text.endswith(("P", "T")):
            raise ValueError(text)
        part = {name: int(number) for name, number in match.groupdict("0").items() if name not in ("sign", "fraction")}
        micros = int((match["fraction"] or "0").ljust(6, "0"))
        value = timedelta(microseconds=micros, **part)
        return -value if match["sign"] else value

    return Codec(write, _stripped(read, "a duration like P1DT2H30M"))


def _uuid(field: Any) -> Codec:
    return Codec(lambda value: str(value if isinstance(value, UUID) else UUID(str(value))), _stripped(UUID, "a uuid"))


def _binary(field: Any) -> Codec:
    def read(text: str) -> bytes:
        return base64.b64decode("".join(text.split()), validate=True)

    return Codec(lambda value: base64.b64encode(bytes(value)).decode(), _stripped(read, "base64"))


def _json(field: Any) -> Codec:
    def write(value: Any) -> str:
        # Non-ASCII is escaped: JSON can hold characters that XML cannot.
        return json.dumps(None if isinstance(value, models.Value) else value, sort_keys=True, separators=(",", ":"))

    def read(text: str) -> Any:
        value = json.loads(text)
        return JSON_NULL if value is None else value

    return Codec(write, _stripped(read, "JSON"))


def _text_or_none(codec: Codec, value: Any) -> str | None:
    return None if value is None else codec.to_text(value)


def _value_or_none(codec: Codec, text: Any) -> Any:
    if not (text is None or isinstance(text, str)):
        raise ValueError(text)
    return None if text is None else codec.to_python(text)


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _array(field: Any) -> Codec | None:
    """Return the codec of an array of PostgreSQL: a JSON array of the texts of its items."""
    item = codec_of(field.base_field)
    if item is None or stored_field(field.base_field) is not field.base_field:
        return None

    def read(text: str) -> Any:
        found = json.loads(text)
        if not isinstance(found, list):
            raise ValueError(text)
        return [_value_or_none(item, entry) for entry in found]

    return Codec(
        lambda value: _dump([_text_or_none(item, entry) for entry in value]), _stripped(read, "a JSON array of texts")
    )


def _hstore(field: Any) -> Codec:
    def read(text: str) -> Any:
        found = json.loads(text)
        if not (isinstance(found, dict) and all(value is None or isinstance(value, str) for value in found.values())):
            raise ValueError(text)
        return found

    return Codec(_dump, _stripped(read, "a JSON object of texts"))


def _range(field: Any) -> Codec | None:
    """Return the codec of a range of PostgreSQL: a JSON object with the texts of its bounds."""
    item = codec_of(field.base_field)
    if item is None:
        return None

    def write(value: Any) -> str:
        if value.isempty:
            return _dump({"empty": True})
        lower, upper = _text_or_none(item, value.lower), _text_or_none(item, value.upper)
        return _dump({"lower": lower, "upper": upper, "bounds": value._bounds})

    def read(text: str) -> Any:
        found = json.loads(text)
        if found == {"empty": True}:
            return field.range_type(empty=True)
        if not (isinstance(found, dict) and set(found) == {"lower", "upper", "bounds"}):
            raise ValueError(text)
        lower, upper = (_value_or_none(item, found[name]) for name in ("lower", "upper"))
        return field.range_type(lower, upper, found["bounds"])

    return Codec(write, _stripped(read, "a JSON object with lower, upper and bounds"))


def may_alter(field: Field) -> bool:
    """Return True if a database may store another value of ``field`` than it is given.

    SQLite stores decimals as floats; MariaDB rounds floats and may keep no fractions of seconds; PostgreSQL normalises
    JSON.
    """
    if isinstance(field, models.DecimalField):
        return (field.max_digits or 99) > 15
    altered: tuple[Any, ...] = (models.FloatField, models.JSONField)
    if connections[router.db_for_write(field.model)].vendor == "mysql":
        altered = (*altered, models.DateTimeField, models.TimeField, models.DurationField)
    return isinstance(field, altered)


_Maker = Callable[[Any], Codec | None]

# The first match is used: subclasses come before their base classes.
_CODECS: tuple[tuple[type | tuple[type, ...], _Maker], ...] = (
    (models.BooleanField, _boolean),
    (models.IntegerField, _integer),
    (models.FloatField, _float),
    (models.DecimalField, _decimal),
    (models.DateTimeField, _datetime),
    (models.DateField, _date),
    (models.TimeField, _time),
    (models.DurationField, _duration),
    (models.UUIDField, _uuid),
    (models.BinaryField, _binary),
    (models.JSONField, _json),
    (
        (models.CharField, models.TextField, models.GenericIPAddressField, models.FileField, models.FilePathField),
        _text,
    ),
)

# By name: these classes cannot be imported without psycopg.
_POSTGRES_CODECS: dict[str, _Maker] = {
    "django.contrib.postgres.fields.array.ArrayField": _array,
    "django.contrib.postgres.fields.hstore.HStoreField": _hstore,
    "django.contrib.postgres.fields.ranges.RangeField": _range,
}
