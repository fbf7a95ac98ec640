"""Read and write the log, one ``TrackedResource`` for each resource, and find the rows that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, models, transaction

from ...models import TrackedResource
from ...turns import write_turn
from ...users import current_user
from ..db.clock import now
from .keys import is_plain, key_text
from .marks import write_uuid

if TYPE_CHECKING:
    from ...kind import Kind

_COLUMNS = (
    "local_key",
    "endpoint",
    "tick",
    "first_endpoint_id",
    "first_tick",
    "stamp",
    "user",
    "is_deleted",
    "etag",
    "extra",
    "awaited_endpoint",
    "keeps_content",
    "restamp",
)
_MARKED_COLUMNS = (*_COLUMNS, "mark", "is_intent", "mark_user", "problem")
#: The columns of a new row; the modules that write ``is_deferred`` and ``is_incomplete`` set them afterwards.
_INSERTED_COLUMNS = ("kind", "uuid", *_MARKED_COLUMNS, "is_deferred", "is_incomplete")


def tracked_rows(kind: Kind) -> models.QuerySet[TrackedResource]:
    """Return the ``TrackedResource`` rows of ``kind``."""
    return TrackedResource.objects.using(kind.database).filter(kind=kind.name)


def update_tracked(using: str, rows: Sequence[TrackedResource], *, with_marks: bool = True) -> None:
    """Write the columns of ``rows`` back; the rows exist and are locked.

    With ``with_marks=False`` the marks in the database are kept, because this transaction may have marked the rows
    since it has read them.
    """
    columns, values_of = (_MARKED_COLUMNS, _marked_values_of) if with_marks else (_COLUMNS, _values_of)
    _write(using, _UPDATE, (*columns, "id"), [(*values_of(row), row.pk) for row in rows])


def new_tracked(kind: str, uuid: UUID) -> TrackedResource:
    """Return a new ``TrackedResource`` that is not stored yet."""
    names, defaults = _blank()
    # By position: the constructor with keywords asks each of the other fields for its default.
    tracked = TrackedResource.from_db("", names, defaults)
    tracked._state.adding, tracked._state.db = True, None
    tracked.kind, tracked.uuid = kind, uuid
    return tracked


@cache
def _blank() -> tuple[list[str], list[Any]]:
    blank = TrackedResource()
    names = [field.attname for field in TrackedResource._meta.concrete_fields]
    return names, [getattr(blank, name) for name in names]


def set_first_state(tracked: TrackedResource) -> None:
    """Set the first state of ``tracked`` at this node to its present state, unless a first state is set already."""
    if tracked.first_tick is None and tracked.tick is not None:
        tracked.first_endpoint_id, tracked.first_tick = tracked.endpoint_id, tracked.tick


def create_tracked(using: str, rows: Sequence[TrackedResource]) -> None:
    """Insert new ``rows``; their primary keys are not read back."""
    connection = connections[using]
    values = [(row.kind, write_uuid(connection, row.uuid), *_marked_values_of(row), False, False) for row in rows]
    _write(using, _INSERT, _INSERTED_COLUMNS, values)


def mark_found(using: str, pks: Sequence[int]) -> None:
    """Mark the resources ``pks``, whose rows were found changed, unless they were marked meanwhile."""
    found = TrackedResource.objects.using(using).filter(pk__in=pks, mark__isnull=True)
    found.update(mark=now(), is_intent=False, mark_user=current_user())


def _getter(*names: str) -> Callable[[TrackedResource], tuple[Any, ...]]:
    return attrgetter(*(f"{name}_id" if name in ("endpoint", "awaited_endpoint") else name for name in names))


_values_of = _getter(*_COLUMNS)
_marked_values_of = _getter(*_MARKED_COLUMNS)


# The statements are not built by the ORM: its bulk_update would make a CASE with a branch for each row and column, and
# its bulk_create prepares each value of each row, which costs several times as much as the statements.


@dataclass(frozen=True)
class _Statement:
    """Hold one statement as two templates: one that is executed for each row, and one for all rows together.

    The second one is for PostgreSQL, which would parse and plan the first one again for each row. It takes one array
    for each column.
    """

    for_each: str
    for_all: str


_INSERT = _Statement(
    "INSERT INTO {table} ({columns}) VALUES ({places})",
    "INSERT INTO {table} ({columns}) SELECT * FROM UNNEST({arrays})",
)
_UPDATE = _Statement(
    "UPDATE {table} SET {places_by_name} WHERE {id} = %s",
    "UPDATE {table} SET {new_by_name} FROM UNNEST({arrays}) AS new ({columns}) WHERE {table}.{id} = new.{id}",
)


def _write(using: str, statement: _Statement, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    connection = connections[using]
    with write_turn(using), connection.cursor() as cursor:
        if len(rows) == 1:
            cursor.execute(_filled_in(using, statement.for_each, names), rows[0])
        elif connection.vendor == "postgresql":
            arrays = [list(column) for column in zip(*rows, strict=True)]
            cursor.execute(_filled_in(using, statement.for_all, names), arrays)
        else:
            cursor.executemany(_filled_in(using, statement.for_each, names), rows)


@cache
def _filled_in(using: str, statement: str, names: tuple[str, ...]) -> str:
    connection = connections[using]
    fields: list[models.Field[Any, Any]] = [TrackedResource._meta.get_field(name) for name in names]  # type: ignore[misc]
    columns = [connection.ops.quote_name(field.column or "") for field in fields]
    # Not varchar(n): a cast to varchar(n) truncates a value that is too long, while the column refuses it.
    types = ["text" if isinstance(field, models.CharField) else field.rel_db_type(connection) for field in fields]
    changed = columns[:-1]
    return statement.format(
        table=connection.ops.quote_name(TrackedResource._meta.db_table),
        columns=", ".join(columns),
        places=", ".join(["%s"] * len(columns)),
        arrays=", ".join(f"%s::{type_}[]" for type_ in types),
        places_by_name=", ".join(f"{column} = %s" for column in changed),
        new_by_name=", ".join(f"{column} = new.{column}" for column in changed),
        id=columns[-1],
    )


BATCH = 1000


def respell_keys(kind: Kind) -> int:
    """Rewrite local keys that an earlier version has stored in another spelling; return their number.

    It stored ``str()`` of the key, for example ``2.5`` for ``2.50`` and a time with the zone in which it was written.
    """
    pk = kind.model._meta.pk
    if is_plain(pk):
        return 0
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name, local_key__isnull=False)
    changed = []
    for row in rows.only("local_key").iterator(BATCH):
        with suppress(ValidationError):
            key = key_text(pk, pk.to_python(row.local_key))
            if key != row.local_key:
                changed.append((row.pk, key))
    for primary_key, key in changed:
        with suppress(IntegrityError), transaction.atomic(using=kind.database):  # the row is tracked by its key already
            rows.filter(pk=primary_key).update(local_key=key)
    return len(changed)


def untracked_keys(kind: Kind, *, on_batch: Callable[[int], None] = lambda count: None) -> Iterator[list[str]]:
    """Yield the untracked local keys of each batch of ``BATCH`` rows, in the order of the primary key.

    After each batch ``on_batch`` is called with the number of rows in it.
    """
    pk = kind.model._meta.pk
    last: Any = None
    while True:
        rows = kind.rows().order_by("pk")
        if last is not None:
            rows = rows.filter(pk__gt=last)
        keys: list[Any] = list(rows.values_list("pk", flat=True)[:BATCH])
        if not keys:
            return
        yield without_tracked(kind, [key_text(pk, key) for key in keys])
        last = keys[-1]
        on_batch(len(keys))


def without_tracked(kind: Kind, keys: list[str]) -> list[str]:
    """Return those of ``keys`` that are not tracked, in the same order."""
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name, local_key__in=keys)
    tracked = set(rows.values_list("local_key", flat=True))
    return [key for key in keys if key not in tracked]
