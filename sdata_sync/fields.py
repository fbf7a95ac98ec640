"""Write the value of a model field as text, and read the text back exactly."""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import models
from django.utils import timezone

from .atom.dates import parse_datetime


@dataclass(frozen=True, slots=True)
class TextualForm:
    """Write a value that is not null as text, and read that text.

    ``to_text`` returns equal texts for equal values, for example for a time in another zone or a dictionary in another
    order, because the etag is a hash of these texts. ``to_python`` raises ``ValueError`` with the expected form.
    """

    to_text: Callable[[Any], str]
    to_python: Callable[[str], Any]


def textual_form(field: "models.Field[Any, Any]") -> TextualForm | None:
    """Return the textual form of ``field``, or ``None`` if its class is not supported."""
    for kinds, make in _FORMS:
        if isinstance(field, kinds):
            return make(field)
    return None


def _text(field: Any) -> TextualForm:
    return TextualForm(str, str)


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


def _boolean(field: Any) -> TextualForm:
    values = {"true": True, "1": True, "false": False, "0": False}

    def read(text: str) -> bool:
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]

    return TextualForm(lambda value: "true" if value else "false", _stripped(read, "true or false"))


def _integer(field: Any) -> TextualForm:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
            raise ValueError(text)
        return int(text)

    return TextualForm(lambda value: str(int(value)), _stripped(read, "an integer"))


def _float(field: Any) -> TextualForm:
    special = {"INF": math.inf, "-INF": -math.inf, "NaN": math.nan}
    names = {"inf": "INF", "-inf": "-INF", "nan": "NaN"}

    def read(text: str) -> float:
        return special[text] if text in special else float(text)

    def write(value: float) -> str:
        text = repr(float(value) + 0.0)  # not every database tells the two zeros apart
        return names.get(text, text)

    return TextualForm(write, _stripped(read, "a number"))


def _decimal(field: Any) -> TextualForm:
    quantum = Decimal(1).scaleb(-field.decimal_places)

    def write(value: Any) -> str:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
        try:
            exact = number.quantize(quantum)
        except InvalidOperation:  # more digits than the context has; such a value is exact already
            exact = number
        return format(exact if exact else abs(exact), "f")

    def read(text: str) -> Decimal:
        number = Decimal(text)
        # An exponent is a few characters, its digits may be more than there is memory for.
        if not number.is_finite() or abs(number.adjusted()) > 1000:
            raise ValueError(text)
        return number

    return TextualForm(write, _stripped(read, "a decimal number"))


def _aware(value: datetime) -> datetime:
    return timezone.make_aware(value, timezone.get_default_timezone()) if timezone.is_naive(value) else value


def _datetime(field: Any) -> TextualForm:
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

    return TextualForm(write, _stripped(read, "a date and time like 2008-10-30T14:52:03.281Z"))


def _date(field: Any) -> TextualForm:
    def read(text: str) -> date:
        # Some clients write a date as the midnight at which it begins.
        return date.fromisoformat(text.partition("T")[0].removesuffix("Z"))

    def write(value: Any) -> str:
        day: date = field.to_python(value)
        return day.isoformat()

    return TextualForm(write, _stripped(read, "a date like 2008-10-30"))


def _time(field: Any) -> TextualForm:
    def read(text: str) -> time:
        moment = time.fromisoformat(text)
        if moment.tzinfo is not None and moment.utcoffset():
            raise ValueError(text)
        return moment.replace(tzinfo=None)

    def write(value: Any) -> str:
        moment: time = field.to_python(value)
        return moment.isoformat()

    return TextualForm(write, _stripped(read, "a time like 14:52:03"))


_DURATION = re.compile(
    r"(?P<sign>-)?P(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,6})\d*)?S)?)?",
    re.ASCII,
)


def _duration(field: Any) -> TextualForm:
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

    return TextualForm(write, _stripped(read, "a duration like P1DT2H30M"))


def _uuid(field: Any) -> TextualForm:
    return TextualForm(
        lambda value: str(value if isinstance(value, UUID) else UUID(str(value))), _stripped(UUID, "a uuid")
    )


def _binary(field: Any) -> TextualForm:
    def read(text: str) -> bytes:
        return base64.b64decode("".join(text.split()), validate=True)

    return TextualForm(lambda value: base64.b64encode(bytes(value)).decode(), _stripped(read, "base64"))


def _json(field: Any) -> TextualForm:
    def write(value: Any) -> str:
        # Non-ASCII is escaped: JSON can hold characters that XML cannot.
        return json.dumps(value, sort_keys=True, separators=(",", ":"), cls=field.encoder)

    def read(text: str) -> Any:
        return json.loads(text, cls=field.decoder)

    return TextualForm(write, _stripped(read, "JSON"))


_Form = tuple[type | tuple[type, ...], Callable[[Any], TextualForm]]

# The first match is used: subclasses come before their base classes.
_FORMS: tuple[_Form, ...] = (
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
    ((models.CharField, models.TextField, models.GenericIPAddressField, models.FileField), _text),
)
