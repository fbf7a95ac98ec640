"""Writing the log: the tracked rows that were numbered, applied or deferred."""

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import connections, models

from ..models import TrackedResource
from ..users import current_user
from .clock import now
from .marks import write_uuid

_COLUMNS = (
    "local_key",
    "endpoint",
    "tick",
    "stamp",
    "user",
    "is_deleted",
    "is_deferred",
    "is_incomplete",
    "etag",
    "extra",
)
#: In the place of an etag: what is marked gets a number of its own whether its content has changed or not.
ANEW = "anew"
_MARK_COLUMNS = ("mark", "is_intent", "mark_user", "problem")


def update_tracked(using: str, rows: Sequence[TrackedResource], *, with_marks: bool = True) -> None:
    """Write ``rows`` back; they exist and are locked.

    Without their marks, if somebody may have marked them since they were read: in this very transaction, that is.
    """
    if not rows:
        return
    values_of = _marked_values_of if with_marks else _values_of
    statement = _update_statement(using, *_COLUMNS, *(_MARK_COLUMNS if with_marks else ()))
    with connections[using].cursor() as cursor:
        cursor.executemany(statement, [(*values_of(row), row.pk) for row in rows])


def new_tracked(kind: str, uuid: UUID) -> TrackedResource:
    """Return a resource that is not stored yet."""
    names, defaults = _blank()
    # By position: the keyword way asks each of the fields for its default.
    tracked = TrackedResource.from_db("", names, defaults)
    tracked._state.adding, tracked._state.db = True, None
    tracked.kind, tracked.uuid = kind, uuid
    return tracked


@cache
def _blank() -> tuple[list[str], list[Any]]:
    blank = TrackedResource()
    names = [field.attname for field in TrackedResource._meta.concrete_fields]
    return names, [getattr(blank, name) for name in names]


def create_tracked(using: str, rows: Sequence[TrackedResource]) -> None:
    """Insert new ``rows``; their primary keys stay unknown."""
    if not rows:
        return
    connection = connections[using]
    values = [(row.kind, write_uuid(connection, row.uuid), *_marked_values_of(row)) for row in rows]
    with connection.cursor() as cursor:
        cursor.executemany(_insert_statement(using), values)


def mark_found(using: str, pks: Sequence[int]) -> None:
    """Mark rows that were found changed, unless somebody has marked them meanwhile."""
    found = TrackedResource.objects.using(using).filter(pk__in=pks, mark__isnull=True)
    found.update(mark=now(), is_intent=False, mark_user=current_user())


# One prepared statement for all rows. The ORM's bulk_update would write a CASE with a branch for each row and
# column, and its bulk_create prepares each value of each row: several times the cost of the statements.


@cache
def _fields(*names: str) -> "tuple[models.Field[Any, Any], ...]":
    return tuple(TrackedResource._meta.get_field(name) for name in names)  # type: ignore[misc]


def _getter(*names: str) -> Callable[[TrackedResource], tuple[Any, ...]]:
    return attrgetter(*(f"{name}_id" if name == "endpoint" else name for name in names))


_values_of = _getter(*_COLUMNS)
_marked_values_of = _getter(*_COLUMNS, *_MARK_COLUMNS)


@cache
def _update_statement(using: str, *names: str) -> str:
    quote = connections[using].ops.quote_name
    settings = ", ".join(f"{quote(field.column or '')} = %s" for field in _fields(*names))
    return f"UPDATE {quote(TrackedResource._meta.db_table)} SET {settings} WHERE {quote('id')} = %s"  # noqa: S608


@cache
def _insert_statement(using: str) -> str:
    quote = connections[using].ops.quote_name
    columns = [quote(field.column or "") for field in _fields("kind", "uuid", *_COLUMNS, *_MARK_COLUMNS)]
    places = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quote(TrackedResource._meta.db_table)} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608
