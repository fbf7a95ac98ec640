"""Save one received row by the model's ``save()``, and set the stored columns to the received values.

An own ``save()``, receivers of the application, ``pre_save`` of a field, a trigger or the type of a column may store
other values than were received. Equal digests mean equal columns, so the received values are written again by column.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, transaction

from ....exceptions import PayloadError
from ....kind import Kind, key_parts
from ....relations import Reference
from ...db.faults import describe, ends_page
from ..resolve import set_attributes
from ..rows import read_rows
from .parents import Parents, restore_parents

if TYPE_CHECKING:
    from ..resolve import RowChange

logger = logging.getLogger(__name__)


def save_row(kind: Kind, change: RowChange, parents: Parents) -> None:
    """Save the row of ``change`` by the model's ``save()``.

    If ``save()`` fails after it replaced received values, for example by a slug that another row has, or because the
    model's base manager hides the row, the columns are written without it, which is logged. ``parents`` are the stored
    columns of registered parents, which stay.

    Raises:
        PayloadError: a constraint refuses the received values; the message names the fields where Django can tell them.
        Exception: what else ``save()`` raises.
    """
    instance = change.instance
    try:
        with transaction.atomic(using=kind.database):
            instance.save(using=kind.database, force_insert=change.is_new)
            restore_parents(kind, parents)
    except Exception as error:
        if ends_page(error):
            raise
        if not (_replaced(kind, change) or _is_hidden(kind, change)):
            named = _violation(kind, change, error)
            if named is None:
                raise
            raise named from error
        logger.warning(
            "%s: save() replaced received values, or did not find the row, and failed (%s); the columns of the row are "
            "written without it",
            kind.name,
            describe(error),
        )
        _write_columns(kind, change)
        return
    _restore_key(kind, change)


def _is_hidden(kind: Kind, change: RowChange) -> bool:
    """Return True if the model's base manager hides the row, so that ``save()`` inserts it once more."""
    return (
        not change.is_new and not kind.model._base_manager.using(kind.database).filter(pk=change.instance.pk).exists()
    )


def _replaced(kind: Kind, change: RowChange) -> bool:
    """Return True if an attribute of the instance differs from the received value of its column.

    The time of an ``auto_now`` field does not count: a save replaces it always, and cannot fail because of it.
    """
    for name, value in change.values.items():
        prop = kind.by_column.get(name)
        if prop is not None and (getattr(prop.field, "auto_now", False) or getattr(prop.field, "auto_now_add", False)):
            continue
        present = getattr(change.instance, name)
        try:
            same = present == value if prop is None else prop.text(prop.stored_value(present)) == prop.text(value)
        except Exception as error:  # save() may set anything
            if ends_page(error):
                raise
            same = False
        if not same:
            return True
    return False


def _violation(kind: Kind, change: RowChange, error: Exception) -> PayloadError | None:
    """Return an error that names the fields of a violated constraint; ``None`` if Django cannot tell them."""
    if not isinstance(error, IntegrityError):
        return None
    try:
        change.instance.validate_unique()
        change.instance.validate_constraints()
    except ValidationError as found:
        return payload_error(kind, found)
    except Exception as raised:  # the methods of the application may raise anything
        if ends_page(raised):
            raise
    return None


def payload_error(kind: Kind, error: ValidationError) -> PayloadError:
    """Return the error that defers an entry whose row does not pass the validation of the model."""
    if not hasattr(error, "error_dict"):
        return PayloadError("; ".join(error.messages))
    fields = error.message_dict
    text = "; ".join(f"{name}: {' '.join(messages)}" for name, messages in fields.items())
    return PayloadError(text, payload_path=_payload_path(kind, next(iter(fields))))


def _payload_path(kind: Kind, name: str) -> str:
    names = [prop.name for prop in kind.properties if prop.field.name == name]
    names += [r.name for r in kind.relations if isinstance(r, Reference) and r.field.name == name]
    return f"{kind.element_name}/{next(iter(names), name)}"


def _write_columns(kind: Kind, change: RowChange) -> None:
    """Write the row without ``save()`` and signals. A ``pre_save`` of a field may still change its column."""
    if kind.model._meta.parents:
        raise PayloadError("The save() of the model failed, and a row in several tables cannot be written without it.")
    instance = kind.model()
    key = kind.model._meta.pk.attname
    if not change.is_new:
        set_attributes(kind, change.instance, change.values)
        kind.rows().filter(pk=change.instance.pk).update(**_written(kind, change.values))
        return
    set_attributes(kind, instance, change.values)
    kind.rows().bulk_create([instance])
    setattr(change.instance, key, instance.pk)
    change.instance._state.adding = False


def _restore_key(kind: Kind, change: RowChange) -> None:
    """Give the row the received primary key, if ``save()`` has replaced it."""
    names = [part.attname for part in key_parts(kind.model._meta.pk)]
    brought = {}
    for name in names:
        if name in change.values:
            prop, value = kind.by_column.get(name), change.values[name]
            brought[name] = value if prop is None else prop.attribute(value)
    if any(getattr(change.instance, name) != value for name, value in brought.items()):
        kind.rows().filter(pk=change.instance.pk).update(**brought)
        for name, value in brought.items():
            setattr(change.instance, name, value)


#: The tables' triggers that are not the database's own, by vendor.
_TRIGGERS = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s",
    "postgresql": "SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass(quote_ident(%s)) AND NOT tgisinternal LIMIT 1",
    "mysql": "SELECT 1 FROM information_schema.triggers WHERE event_object_schema = DATABASE()"
    " AND event_object_table = %s LIMIT 1",
}


def alters_rows(kind: Kind) -> bool:
    """Return True if the table has triggers, or the database truncates values; read once per process (a query)."""
    return _alters_rows(kind, kind.database)


@lru_cache(maxsize=512)
def _alters_rows(kind: Kind, using: str) -> bool:
    connection = connections[using]
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SELECT @@sql_mode")
            if "STRICT" not in cursor.fetchone()[0]:
                return True
        cursor.execute(_TRIGGERS[connection.vendor], [kind.model._meta.db_table])
        return cursor.fetchone() is not None


def settle(kind: Kind, changes: Sequence[RowChange]) -> dict[str, tuple[Any, ...]]:
    """Set the stored columns of written rows to the received values; return the columns of the rows by local key.

    Raises:
        PayloadError: ``save()`` wrote no row, or the database holds another value than it was given.
    """
    keys = [change.local_key for change in changes]
    rows = read_rows(kind, keys)
    changed = []
    for key, change in zip(keys, changes, strict=True):
        if key not in rows:
            raise PayloadError("The save() of the model did not write the row.")
        names = _different(kind, change, rows[key])
        if names:
            changed.append((key, change, tuple(names)))
    if changed:
        _set_columns(kind, [(change, names) for _, change, names in changed])
        rows.update(read_rows(kind, [key for key, *_ in changed]))
    for key, change, _ in changed:
        for name in _different(kind, change, rows[key]):
            raise _inexact(kind, name, change.values[name], rows[key][kind.columns.index(name)])
    return rows


def _set_columns(kind: Kind, changed: Sequence[tuple[RowChange, tuple[str, ...]]]) -> None:
    """Set the named columns of written rows to the received values, without ``save()`` and ``pre_save``."""
    groups: dict[tuple[str, ...], list[RowChange]] = {}
    for change, names in changed:
        groups.setdefault(names, []).append(change)
    attributes = {field.attname: field.name for field in kind.model._meta.concrete_fields}
    for names, changes in groups.items():
        if len(changes) > 1 and not kind.model._meta.parents and kind.converters.keys().isdisjoint(names):
            rows = [kind.model() for _ in changes]
            for row, change in zip(rows, changes, strict=True):
                row.pk = change.instance.pk
                set_attributes(kind, row, {name: change.values[name] for name in names})
            kind.rows().bulk_update(rows, [attributes[name] for name in names], batch_size=500)
            continue
        for change in changes:
            values = {name: change.values[name] for name in names}
            kind.rows().filter(pk=change.instance.pk).update(**_written(kind, values))


def _different(kind: Kind, change: RowChange, row: Sequence[Any]) -> list[str]:
    """Return the names of the columns that hold another value in ``row`` than was received."""
    found = []
    for name, value in zip(kind.columns, row, strict=True):
        if name in change.values:
            prop, received = kind.by_column.get(name), change.values[name]
            if prop is None:
                differs = value != received and str(value) != str(received)
            else:
                differs = prop.text(value) != prop.text(received)
            if differs:
                found.append(name)
    return found


def _written(kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    properties = kind.by_column
    return {name: properties[name].written(value) if name in properties else value for name, value in values.items()}


def _inexact(kind: Kind, name: str, received: Any, stands: Any) -> PayloadError:
    prop = kind.by_column.get(name)
    element = name if prop is None else prop.name
    sent, held = (str(value) if prop is None else prop.text(value) for value in (received, stands))
    return PayloadError(
        f"The database cannot hold the value {(sent or '')[:80]!r} of {element}; it holds {(held or '')[:80]!r}.",
        payload_path=f"{kind.element_name}/{element}",
    )
