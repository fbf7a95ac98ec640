"""References: foreign keys to rows of other kinds, or of the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from ...atom.payload import Text
from ...exceptions import PayloadError
from ...registry import registry
from ...relations import NATURAL, Reference
from ...resources import SyncResource, all_rows
from ..faults import ends_page
from ..marks import key_text
from .directory import uuids_of


def reference_texts(resource: SyncResource, relation: Reference, values: Mapping[str, Any]) -> dict[str, Text]:
    """Return the texts of ``relation`` for rows whose foreign keys are ``values``, both by local key."""
    texts: dict[str, Text] = dict.fromkeys(values)
    present = {value for value in values.values() if value is not None}
    if not present:
        return texts
    target = registry.of_model(relation.model)
    if target is None:
        by_value = _natural_texts(resource, relation, present)
    else:
        keys = keys_by_value(resource, relation, present)
        uuids = uuids_of(target, keys.values())
        by_value = {value: str(uuids[key]) for value, key in keys.items() if key in uuids}
    texts.update((key, by_value.get(value)) for key, value in values.items() if value is not None)
    return texts


def keys_by_value(resource: SyncResource, relation: Reference, values: Iterable[Any]) -> dict[Any, str]:
    """Return the local keys of the rows that foreign keys lead to, which need not hold primary keys."""
    target = relation.field.target_field
    pk = relation.model._meta.pk
    if target.primary_key:
        return {value: key_text(pk, value) for value in values}
    rows = all_rows(relation.model, resource.database).filter(**{f"{target.attname}__in": list(values)})
    return {value: key_text(pk, key) for value, key in rows.values_list(target.attname, "pk")}


def value_by_key(resource: SyncResource, relation: Reference, key: str) -> Any:
    """Return what the foreign key holds to lead to the row with the local ``key``."""
    target, pk = relation.field.target_field, relation.model._meta.pk
    if target.primary_key:
        return pk.to_python(key)
    rows = all_rows(relation.model, resource.database).filter(pk=pk.to_python(key))
    return rows.values_list(target.attname, flat=True).first()


def _natural_texts(resource: SyncResource, relation: Reference, values: Iterable[Any]) -> dict[Any, Text]:
    target = relation.field.target_field
    rows = all_rows(relation.model, resource.database).filter(**{f"{target.attname}__in": list(values)})
    return {getattr(row, target.attname): _natural_text(row) for row in rows}


def _natural_text(row: Any) -> str:
    parts = [str(part) for part in row.natural_key()]
    if len(parts) == 1 and not parts[0].startswith("["):
        return f"{NATURAL}{parts[0]}"
    return NATURAL + json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def find_by_natural_key(resource: SyncResource, relation: Reference, text: str) -> Any:
    """Return what the foreign key holds to lead to the row with the natural key that ``text`` spells.

    Raises:
        PayloadError: there is none.
    """
    text = text.removeprefix(NATURAL)
    parts = [text]
    if text.startswith("["):
        try:
            parts = [str(part) for part in json.loads(text)]
        except (ValueError, TypeError, RecursionError):
            parts = [text]
    manager: Any = relation.model._default_manager.db_manager(resource.database)
    try:
        with transaction.atomic(using=resource.database):  # what the database refuses must not spoil the page
            row = manager.get_by_natural_key(*parts)
    except Exception as error:  # none, several, or whatever the model makes of what came
        if ends_page(error):
            raise
        raise PayloadError(f"there is no {relation.model._meta.label} called {text[:80]!r} here.") from error
    return getattr(row, relation.field.target_field.attname)
