"""Local keys: the text of the primary key of a row at this node, one text for all spellings of a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, cast
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import models

from ...codecs import attribute_value, codec_of, linked_field, stored_field, stored_value

Field: TypeAlias = "models.Field[Any, Any]"

#: Integer primary keys are smaller than this in every database.
MAX_INTEGER = 2**63


@dataclass(frozen=True, slots=True)
class _KeyCodec:
    """Write a primary key as its local key, and read it; either may raise the errors in ``_UNREADABLE``."""

    to_text: Callable[[Any], str]
    to_value: Callable[[str], Any]
    #: The type whose values are keys as they are, so that ``str()`` is enough; ``None`` for other fields.
    plain: type | None = None


_UNREADABLE = (ValidationError, ValueError, TypeError, ArithmeticError, RecursionError)


def key_text(pk: Field, value: Any) -> str:
    """Return the local key for the primary key ``value``: the same text for every spelling of the value.

    A decimal has the decimal places of its field, a time is in UTC, a member of an enumeration is its value. The text
    of a composite key is a JSON array of the texts of its parts. A value that does not fit the field is its ``str()``.
    """
    codec = _codec(pk)
    if type(value) is codec.plain:
        return str(value)
    try:
        return codec.to_text(value)
    except _UNREADABLE:
        return str(value)


def is_plain(pk: Field) -> bool:
    """Return True if ``pk`` is composite, or the text of each key is its ``str()``: an integer, a uuid, a text."""
    pk = linked_field(pk)
    own = isinstance(pk, models.IntegerField | models.UUIDField | models.CharField | models.CompositePrimaryKey)
    return own and stored_field(pk) is pk


def key_of(instance: models.Model) -> str:
    """Return the local key of ``instance``, which has a primary key."""
    return key_text(instance._meta.pk, instance.pk)


def is_whole(value: Any) -> bool:
    """Return True if ``value`` is a primary key: not null, and no part of it is."""
    return value is not None and not (isinstance(value, tuple) and None in value)


def key_value(pk: Field, key: str) -> Any:
    """Return the primary key for the local ``key``, as querysets and instances have it.

    Raises:
        ValidationError: ``key`` is no value of the primary key.
    """
    try:
        value = _codec(pk).to_value(key)
    except _UNREADABLE as error:
        raise ValidationError(f"Expected a primary key of {pk.model._meta.label}, received {key[:80]!r}.") from error
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise ValidationError(f"Expected an integer of at most 64 bits, received {key[:80]!r}.")
    return value


def key_values(pk: Field, keys: Iterable[str]) -> list[Any]:
    """Return the primary keys for the local ``keys``, without those that are no value of the primary key."""
    values = []
    for key in keys:
        with suppress(ValidationError):
            values.append(key_value(pk, key))
    return values


@cache
def _codec(pk: Field) -> _KeyCodec:
    if isinstance(pk, models.CompositePrimaryKey):
        return _composite(pk)
    pk = linked_field(pk)
    codec, stored = codec_of(pk), stored_field(pk)
    if codec is None:
        return _KeyCodec(lambda value: str(pk.to_python(value)), pk.to_python)
    if stored is not pk:
        return _KeyCodec(
            lambda value: codec.to_text(stored_value(pk, value)),
            lambda key: attribute_value(pk, codec.to_python(key)),
        )
    plain = int if isinstance(pk, models.IntegerField) else UUID if isinstance(pk, models.UUIDField) else None
    return _KeyCodec(lambda value: codec.to_text(pk.to_python(value)), codec.to_python, plain)


def _composite(pk: models.CompositePrimaryKey) -> _KeyCodec:
    parts = cast("tuple[Field, ...]", pk.fields)

    def to_value(key: str) -> tuple[Any, ...]:
        texts = json.loads(key)
        if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
            raise ValueError(key)
        return tuple(key_value(part, text) for part, text in zip(parts, texts, strict=True))

    def to_text(value: Any) -> str:
        texts = [key_text(part, each) for part, each in zip(parts, value, strict=True)]
        return json.dumps(texts, separators=(",", ":"), ensure_ascii=False)

    return _KeyCodec(to_text, to_value)
