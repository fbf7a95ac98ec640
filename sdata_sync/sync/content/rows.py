"""Read the rows of a kind's model by local key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import models

from ...codecs import linked_field
from ...exceptions import PayloadError
from ..db.isolation import read_apart
from ..db.prepared import PreparedQuery, can_prepare
from ..log.keys import key_of, key_text, key_values

if TYPE_CHECKING:
    from ...kind import Kind


def read_rows(kind: Kind, keys: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of the rows ``keys`` by local key, in the order of ``kind.columns``."""
    wanted = key_values(kind.model._meta.pk, keys)
    if not wanted:
        return {}
    target = linked_field(kind.model._meta.pk)
    if can_prepare(target):
        found = _values_query(kind, len(wanted)).rows(kind.database, *wanted)
    else:
        found = list(kind.rows().filter(pk__in=wanted).values_list("pk", *kind.selection))
    pk = kind.model._meta.pk
    return {key_text(pk, values[0]): values[1:] for values in found}


def existing_keys(kind: Kind, keys: Iterable[str]) -> set[str]:
    """Return those of ``keys`` that have a row."""
    wanted = key_values(kind.model._meta.pk, keys)
    pk = kind.model._meta.pk
    found = kind.rows().filter(pk__in=wanted).values_list("pk", flat=True) if wanted else ()
    return {key_text(pk, key) for key in found}


def brought_key(kind: Kind, instance: models.Model) -> str | None:
    """Return the local key that the received row ``instance`` brings, or ``None`` if this node makes its key."""
    return joined_key(kind, instance.__dict__) if kind.brings_keys else None


def joined_key(kind: Kind, attributes: Mapping[str, Any]) -> str | None:
    """Return the local key of a row with ``attributes``, by column; ``None`` if a column of the key has no value."""
    values = tuple(attributes.get(name) for name in kind.key_columns)
    if None in values:
        return None
    return key_text(kind.key_field, values if len(values) > 1 else values[0])


def read_instances_apart(kind: Kind, keys: Iterable[str]) -> tuple[dict[str, models.Model], dict[str, str]]:
    """Return the rows as instances, and for each row that cannot be loaded the error text, both by local key."""
    return read_apart(kind.database, list(keys), lambda some: read_instances(kind, some))


def unreadable_row(key: str, problem: str) -> PayloadError:
    """Return the error that defers an entry whose row at this node cannot be read because of ``problem``."""
    return PayloadError(f"The row {key!r} of this node cannot be read: {problem}", public="Refused.")


def read_instances(kind: Kind, keys: Iterable[str]) -> dict[str, models.Model]:
    """Return the rows as instances by local key."""
    wanted = key_values(kind.model._meta.pk, keys)
    return {key_of(row): row for row in kind.rows().filter(pk__in=wanted)} if wanted else {}


@lru_cache(maxsize=512)
def _values_query(kind: Kind, count: int) -> PreparedQuery[Any]:
    return PreparedQuery(
        lambda *keys: kind.rows().filter(pk__in=keys).values_list("pk", *kind.selection),
        *[linked_field(kind.model._meta.pk)] * count,
    )
