"""Mark resources as changed at this node, in the writer's own transaction."""

from collections.abc import Collection, Iterable
from functools import cache, partial
from secrets import randbits
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.constants import OnConflict

from ...atom.text import replace_forbidden
from ...models import TrackedResource
from ...turns import write_turn
from ...users import current_user
from ..db.clock import now
from ..db.retry import repeated

_VALUES: dict[str, Any] = {
    "kind": None,
    "uuid": None,
    "local_key": None,
    "mark": None,
    "is_intent": None,
    "mark_user": None,
    "stamp": 0,
    "user": "",
    "is_deleted": False,
    "is_deferred": False,
    "is_incomplete": False,
    "etag": "",
    "extra": "",
    "problem": "",
    "keeps_content": False,
    "restamp": False,
}
_UPDATED = ("mark", "is_intent", "mark_user")


#: The time of a row that a receiver of the application creates while a received change is applied: nobody has made the
#: row at this moment. If it turns out to be the same thing as a row that somebody has made, it yields.
BY_RECEIVER = 1


def mark(
    using: str,
    kind: str,
    keys: Iterable[str | None],
    *,
    is_intent: bool = False,
    uuid: UUID | None = None,
    made_at: int | None = None,
) -> None:
    """Mark the resources with the local ``keys`` as changed, and track those that are not tracked yet.

    All keys are written with one statement. ``is_intent`` means that a row is about to be written outside a
    transaction: the mark is kept for a grace period even if the content has not changed. ``uuid`` is the uuid for a
    single resource that is not tracked yet. ``made_at`` is the time of the change in milliseconds, by default now.
    """
    connection = connections[using]
    changed, user = now() if made_at is None else made_at, _user()
    rows = [
        (
            kind,
            write_uuid(connection, uuid or new_uuid()),
            key,
            changed,
            is_intent,
            user,
            0,
            "",
            False,
            False,
            False,
            "",
            "",
            "",
            False,
            False,
        )
        for key in keys
    ]
    if rows:
        repeated(using, partial(_write_marks, connection, rows))


def _write_marks(connection: BaseDatabaseWrapper, rows: list[tuple[Any, ...]]) -> None:
    with write_turn(connection.alias), connection.cursor() as cursor:
        if connection.vendor == "mysql":
            # An upsert of InnoDB locks the gaps beside the rows that it looks for, and writers deadlock because of
            # these locks. Most resources are tracked already, so that a plain update is enough for them.
            rows = [row for row in rows if row[2] is None or not _mark_tracked_row(connection.alias, cursor, row)]
        if len(rows) == 1:
            cursor.execute(_upsert(connection.alias), rows[0])
        elif rows:
            cursor.executemany(_upsert(connection.alias), rows)


def _mark_tracked_row(using: str, cursor: Any, row: tuple[Any, ...]) -> bool:
    kind, _, key, *marked = row[:6]
    cursor.execute(_tracked_mark(using), (*marked, kind, key))
    return bool(cursor.rowcount)


def mark_tracked(using: str, kind: str, keys: Collection[str], *, is_intent: bool = False) -> None:
    """Mark the tracked resources with the local ``keys`` as changed; ignore the keys that are not tracked."""
    known = TrackedResource.objects.using(using).filter(kind=kind, local_key__in=keys)
    repeated(using, partial(known.update, mark=now(), is_intent=is_intent, mark_user=_user()))


def reserve_uuid(using: str, kind: str) -> UUID:
    """Insert a placeholder for a row that is about to be created, whose primary key is not known yet.

    Return the uuid of the placeholder, for ``bind_uuid``.
    """
    uuid = new_uuid()
    mark(using, kind, [None], is_intent=True, uuid=uuid)
    return uuid


def bind_uuid(using: str, kind: str, uuid: UUID, key: str) -> None:
    """Set the local ``key`` on the placeholder that ``reserve_uuid`` has inserted under ``uuid``, and mark it."""
    try:
        is_bound = repeated(using, partial(_bind_uuid, connections[using], kind, uuid, key))
    except IntegrityError:  # another transaction has changed the new row since, so it is tracked already
        placeholder = TrackedResource.objects.using(using).filter(kind=kind, uuid=uuid, local_key=None)
        repeated(using, placeholder.delete)
        is_bound = False
    if not is_bound:  # or the write took longer than the grace period, and the placeholder was deleted
        mark(using, kind, [key])


def _bind_uuid(connection: BaseDatabaseWrapper, kind: str, uuid: UUID, key: str) -> bool:
    with write_turn(connection.alias), connection.cursor() as cursor:
        cursor.execute(_binding(connection.alias), (key, now(), False, _user(), kind, write_uuid(connection, uuid)))
        return bool(cursor.rowcount == 1)


def new_uuid() -> UUID:
    """Return a uuid of version 7: the time in milliseconds, then random bits.

    Uuids that are made together are neighbours in the index of every node, so that a batch of new rows does not touch
    one page of the index per row.
    """
    return UUID(int=(now() << 80) | (7 << 76) | (randbits(12) << 64) | (2 << 62) | randbits(62))


def _user() -> str:
    return replace_forbidden(current_user())


def write_uuid(connection: BaseDatabaseWrapper, uuid: UUID) -> UUID | str:
    """Return ``uuid`` in the form in which the database stores it."""
    return uuid if connection.features.has_native_uuid_field else uuid.hex


@cache
def _binding(using: str) -> str:
    quote = connections[using].ops.quote_name
    columns = ", ".join(f"{quote(name)} = %s" for name in ("local_key", *_UPDATED))
    # The uuid alone selects the placeholder, because no other transaction knows it yet. With a condition on the
    # missing local key as well, InnoDB would lock the placeholders of all writers.
    return (
        f"UPDATE {quote(TrackedResource._meta.db_table)} SET {columns} "  # noqa: S608  names of our own columns
        f"WHERE {quote('kind')} = %s AND {quote('uuid')} = %s"
    )


@cache
def _tracked_mark(using: str) -> str:
    quote = connections[using].ops.quote_name
    columns = ", ".join(f"{quote(name)} = %s" for name in _UPDATED)
    return (
        f"UPDATE {quote(TrackedResource._meta.db_table)} SET {columns} "  # noqa: S608  names of our own columns
        f"WHERE {quote('kind')} = %s AND {quote('local_key')} = %s"
    )


@cache
def _upsert(using: str) -> str:
    # Built once per database: the ORM's bulk_create with update_conflicts makes the same statement, but compiling it
    # for each save would cost more than the save.
    connection = connections[using]
    meta = TrackedResource._meta
    fields: list[models.Field[Any, Any]] = [meta.get_field(name) for name in _VALUES]  # type: ignore[misc]
    quote = connection.ops.quote_name
    suffix = connection.ops.on_conflict_suffix_sql(fields, OnConflict.UPDATE, list(_UPDATED), ["kind", "local_key"])
    columns = ", ".join(quote(field.column or "") for field in fields)
    placeholders = ", ".join(["%s"] * len(fields))
    return f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({placeholders}) {suffix}"  # noqa: S608  names of our own
