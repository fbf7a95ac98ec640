"""Associations: many-to-many fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

from ...atom.payload import Text
from ...registry import registry
from ...relations import Association, association_text
from ...resources import SyncResource, all_rows
from ..marks import key_text
from ..statements import chunks
from .directory import uuids_of


def members(resource: SyncResource, relation: Association, keys: Collection[str]) -> dict[str, list[str]]:
    """Return the local keys of what is associated with the rows ``keys``, by their local keys."""
    field = relation.field
    source, target = (relation.through._meta.get_field(name) for name in _ends(field))
    own, other = resource.model._meta.pk, relation.model._meta.pk
    found: dict[str, list[str]] = defaultdict(list)
    for chunk in chunks(keys):
        rows = all_rows(relation.through, resource.database).filter(
            **{f"{source.attname}__in": [own.to_python(key) for key in chunk]}  # type: ignore[union-attr]
        )
        for here, there in rows.values_list(source.attname, target.attname):  # type: ignore[union-attr]
            found[key_text(own, here)].append(key_text(other, there))
    return found


def association_texts(
    resource: SyncResource, relation: Association, keys: Collection[str], waiting: Mapping[str, Iterable[UUID]]
) -> dict[str, Text]:
    """Return the texts of ``relation`` for the rows ``keys``; ``waiting`` are the members that have not come yet."""
    target = registry.of_model(relation.model)
    if target is None:  # said by the checks
        return dict.fromkeys(keys, "")
    found = members(resource, relation, keys)
    uuids = uuids_of(target, {key for others in found.values() for key in others})
    return {
        key: association_text(
            {*(uuids[other] for other in found.get(key, ()) if other in uuids), *waiting.get(key, ())}
        )
        for key in keys
    }


def set_members(resource: SyncResource, relation: Association, key: str, wanted: Iterable[str]) -> None:
    """Make the rows with the keys ``wanted`` the members of the row ``key``."""
    instance = resource.model(pk=resource.model._meta.pk.to_python(key))
    instance._state.db, instance._state.adding = resource.database, False
    pk = relation.model._meta.pk
    manager: Any = getattr(instance, relation.field.name)
    manager.set([pk.to_python(other) for other in wanted])


def _ends(field: Any) -> tuple[str, str]:
    return field.m2m_field_name(), field.m2m_reverse_field_name()
