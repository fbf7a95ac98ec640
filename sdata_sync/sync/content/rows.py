"""Read the rows of a kind's model by local key."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models

from ...exceptions import PayloadError
from ..db.isolation import read_apart
from ..db.prepared import PreparedQuery, can_prepare
from ..log.marks import key_text

if TYPE_CHECKING:
    from ...kind import Kind

#: Integer primary keys are smaller than this in every database.
MAX_INTEGER = 2**63


def read_rows(kind: Kind, keys: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of the rows ``keys`` by local key, in the order of ``kind.columns``."""
    wanted = _readable(kind, keys)
    if not wanted:
        return {}
    target = _key_field(kind)
    if can_prepare(target):
        found = _values_query(kind, len(wanted)).rows(kind.database, *wanted)
    else:
        found = list(kind.rows().filter(pk__in=wanted).values_list("pk", *kind.selection))
    return {str(values[0]): values[1:] for values in found}


def existing_keys(kind: Kind, keys: Iterable[str]) -> set[str]:
    """Return those of ``keys`` that have a row."""
    wanted = _readable(kind, keys)
    return {str(key) for key in kind.rows().filter(pk__in=wanted).values_list("pk", flat=True)} if wanted else set()


def brought_key(kind: Kind, instance: models.Model) -> str | None:
    """Return the local key that the received row ``instance`` brings, or ``None`` if this node makes its key."""
    value = getattr(instance, kind.key_field.attname) if kind.brings_keys else None
    return None if value is None else key_text(kind.key_field, value)


def read_instances_apart(kind: Kind, keys: Iterable[str]) -> tuple[dict[str, models.Model], dict[str, str]]:
    """Return the rows as instances, and for each row that cannot be loaded the error text, both by local key."""
    return read_apart(kind.database, list(keys), lambda some: read_instances(kind, some))


def unreadable_row(key: str, problem: str) -> PayloadError:
    """Return the error that defers an entry whose row at this node cannot be read because of ``problem``."""
    return PayloadError(f"The row {key!r} of this node cannot be read: {problem}", public="Refused.")


def read_instances(kind: Kind, keys: Iterable[str]) -> dict[str, models.Model]:
    """Return the rows as instances by local key."""
    wanted = _readable(kind, keys)
    return {str(row.pk): row for row in kind.rows().filter(pk__in=wanted)} if wanted else {}


def _readable(kind: Kind, keys: Iterable[str]) -> list[Any]:
    """Return the primary keys for the local ``keys``, without keys that are no value of the primary key."""
    to_python = kind.model._meta.pk.to_python
    values = []
    for key in keys:
        with suppress(ValidationError):
            value = to_python(key)
            if not isinstance(value, int) or abs(value) < MAX_INTEGER:
                values.append(value)
    return values


def _key_field(kind: Kind) -> models.Field[Any, Any]:
    field = kind.model._meta.pk
    while isinstance(field, models.ForeignKey):  # the primary key of a child model is a link to its parent model
        field = field.target_field
    return field


@lru_cache(maxsize=512)
def _values_query(kind: Kind, count: int) -> PreparedQuery[Any]:
    return PreparedQuery(
        lambda *keys: kind.rows().filter(pk__in=keys).values_list("pk", *kind.selection),
        *[_key_field(kind)] * count,
    )
