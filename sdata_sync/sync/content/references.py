"""Encode references and associations: find the uuid for a row, the row for a uuid.

A foreign key becomes the uuid of its row, or a natural key where the model is not registered. A generic foreign key
becomes kind and uuid. A many-to-many field becomes the sorted uuids.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import models, transaction

from ...exceptions import PayloadError
from ...kind import Kind, all_rows
from ...models import TrackedResource
from ...registry import registry
from ...relations import KEY, NATURAL, PROBLEM, Association, Reference, association_text, natural_text
from ..db.faults import ends_page
from ..db.statements import chunks
from ..log.keys import key_of, key_text, key_value, key_values
from ..log.marks import mark
from ..log.wakeup import wake_after_commit
from .rows import existing_keys

if TYPE_CHECKING:
    from django.contrib.contenttypes.fields import GenericForeignKey

    from ...atom.payload import Text

#: The greatest length of a chain of aliases, each replaced by the next.
MAX_ALIASES = 10


def uuids_of(kind: Kind, keys: Iterable[str], *, allocate: bool) -> dict[str, UUID | str]:
    """Return the uuids of rows by local key.

    A row has no uuid until it is linked or sent (SData sync 1.2). With ``allocate``, such a row is marked and gets a
    new uuid. Otherwise its local key, after ``KEY``, is returned in place of the uuid. A key without a row gets none.
    """
    wanted = set(keys)
    found: dict[str, UUID | str] = dict(_tracked(kind, wanted))
    missing = wanted - found.keys()
    missing = existing_keys(kind, missing) if missing else missing
    if missing and not allocate:
        found.update((key, f"{KEY}{key}") for key in missing)
    elif missing:
        mark(kind.database, kind.name, sorted(missing))
        wake_after_commit(kind.name, kind.database)
        found.update(_tracked(kind, missing))
    return found


def _tracked(kind: Kind, keys: Collection[str]) -> dict[str, UUID]:
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    found: dict[str, UUID] = {}
    for chunk in chunks(keys):
        found.update(rows.filter(local_key__in=chunk).values_list("local_key", "uuid"))  # type: ignore[arg-type]
    return found


def keys_of(kind: Kind, uuids: Iterable[UUID]) -> dict[UUID, str]:
    """Return the local keys of rows by uuid or alias, without uuids that have no row at this node."""
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    found: dict[UUID, str] = {}
    #: The requested uuids, by the present uuid of their resource.
    wanted: dict[UUID, list[UUID]] = {uuid: [uuid] for uuid in uuids}
    for _ in range(MAX_ALIASES):
        following: dict[UUID, list[UUID]] = {}
        for chunk in chunks(wanted):
            known = rows.filter(uuid__in=chunk).values_list("uuid", "local_key", "replaced_by")
            for uuid, key, replacement in known:
                if key is not None:
                    found.update(dict.fromkeys(wanted[uuid], key))
                elif replacement is not None:
                    following.setdefault(replacement, []).extend(wanted[uuid])
        wanted = following
        if not wanted:
            break
    return found


def reference_texts(kind: Kind, relation: Reference, values: Mapping[str, Any], *, allocate: bool) -> dict[str, Text]:
    """Return the texts of ``relation`` for rows whose foreign keys are ``values``, both by local key."""
    texts: dict[str, Text] = dict.fromkeys(values)
    present = {value for value in values.values() if value is not None}
    if not present:
        return texts
    target = registry.of_model(relation.model)
    if target is None:
        by_value = _natural_texts(kind, relation, present)
    else:
        keys = keys_by_value(kind, relation, present)
        uuids = uuids_of(target, keys.values(), allocate=allocate)
        if others := [value for value, key in keys.items() if key not in uuids]:
            spelled = _keys_as_stored(kind, relation, others)
            keys.update(spelled)
            uuids.update(uuids_of(target, spelled.values(), allocate=allocate))
        by_value = {value: str(uuids[key]) for value, key in keys.items() if key in uuids}
    for key, value in values.items():
        if value is not None:
            texts[key] = by_value.get(value) or _dangling(relation, value)
    return texts


def _dangling(relation: Reference, value: Any) -> str:
    """Return the text of a foreign key to a row that does not exist, which a column without a constraint can hold."""
    return f"{PROBLEM}{relation.field.name} refers to {value}, and there is no such {relation.model._meta.label}"


def keys_by_value(kind: Kind, relation: Reference, values: Iterable[Any]) -> dict[Any, str]:
    """Return the local keys of the targets of foreign keys, which may refer to another column than the primary key."""
    target = relation.field.target_field
    pk = relation.model._meta.pk
    if target.primary_key:
        return {value: key_text(pk, value) for value in values}
    rows = all_rows(relation.model, kind.database).filter(**{f"{target.attname}__in": list(values)})
    return {value: key_text(pk, key) for value, key in rows.values_list(target.attname, "pk")}


def _keys_as_stored(kind: Kind, relation: Reference, values: Iterable[Any]) -> dict[Any, str]:
    """Return the local keys of targets that the database finds by another spelling, as a collation may let it."""
    column, pk = relation.field.target_field.attname, relation.model._meta.pk
    found = {}
    for value in values:
        key = all_rows(relation.model, kind.database).filter(**{column: value}).values_list("pk", flat=True).first()
        if key is not None:
            found[value] = key_text(pk, key)
    return found


def value_by_key(kind: Kind, relation: Reference, key: str) -> Any:
    """Return the foreign key's value for the target row with the local ``key``."""
    target, pk = relation.field.target_field, relation.model._meta.pk
    if target.primary_key:
        return key_value(pk, key)
    rows = all_rows(relation.model, kind.database).filter(pk=key_value(pk, key))
    return rows.values_list(target.attname, flat=True).first()


def _natural_texts(kind: Kind, relation: Reference, values: Iterable[Any]) -> dict[Any, Text]:
    target = relation.field.target_field
    rows = all_rows(relation.model, kind.database).filter(**{f"{target.attname}__in": list(values)})
    return {getattr(row, target.attname): _natural_text(row) for row in rows}


def _natural_text(row: Any) -> str:
    parts = [str(part) for part in row.natural_key()]
    if len(parts) == 1 and not parts[0].startswith("["):
        return f"{NATURAL}{parts[0]}"
    return NATURAL + json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def find_by_natural_key(using: str, model: type[models.Model], text: str) -> Any:
    """Return the row of ``model`` with the natural key in ``text``.

    Raises:
        PayloadError: the model's manager finds no single row with that natural key, or raises another exception.
    """
    text = text.removeprefix(NATURAL)
    parts = [text]
    if text.startswith("["):
        try:
            parts = [str(part) for part in json.loads(text)]
        except (ValueError, TypeError, RecursionError):
            parts = [text]
    manager: Any = model._default_manager.db_manager(using)
    try:
        with transaction.atomic(using=using):  # an error must not end the transaction of the page
            return manager.get_by_natural_key(*parts)
    except Exception as error:  # no row, several rows, or an exception of the model's own method
        if ends_page(error):
            raise
        raise PayloadError(f"no {model._meta.label} here has the natural key {text[:80]!r}.") from error


def generic_texts(kind: Kind, values: Mapping[str, tuple[Any, Any]], *, allocate: bool) -> dict[str, Text]:
    """Return the texts of a generic foreign key for rows whose content type and object are ``values``, by local key."""
    texts: dict[str, Text] = dict.fromkeys(values)
    by_type: dict[Any, dict[str, Any]] = {}
    for key, (content_type, value) in values.items():
        if content_type is not None and value is not None:
            by_type.setdefault(content_type, {})[key] = value
    for content_type, objects in by_type.items():
        model = _content_type_manager(kind.database).get_for_id(content_type).model_class()
        target = None if model is None else registry.of_model(model._meta.concrete_model)
        if model is None or target is None:
            label = "a model that does not exist any more" if model is None else model._meta.label
            texts.update(dict.fromkeys(objects, f"{PROBLEM}it points to {label}, which is not registered"))
            continue
        pk = target.model._meta.pk
        keys = {key: key_text(pk, value) for key, value in objects.items()}
        # The database does not check the target. A missing target counts as no reference.
        present = existing_keys(target, keys.values())
        uuids = uuids_of(target, present, allocate=allocate)
        proxy = f" {model._meta.label_lower}" if model._meta.proxy else ""
        texts.update((key, f"{target.name} {uuids[other]}{proxy}") for key, other in keys.items() if other in uuids)
    return texts


def generic_target(kind: str) -> Kind:
    """Return the resource of the kind that a generic foreign key names.

    Raises:
        PayloadError: this node has no such kind.
    """
    target = registry.of_kind(kind)
    if target is None:
        raise PayloadError(f"expected a reference to a kind that this node has, received one to {kind[:80]!r}.")
    return target


def generic_values(kind: Kind, target: Kind, key: str, proxy: str = "") -> tuple[Any, Any]:
    """Return the content type and the object key for the row of ``target`` with the local ``key``.

    ``proxy`` is the label of a proxy model, if the content type is that of the proxy.

    Raises:
        PayloadError: this node has no such proxy of the model.
    """
    pk: models.Field[Any, Any] = target.model._meta.pk
    model = target.model
    if proxy:
        known = [other for other in apps.get_models() if other._meta.concrete_model is model]
        found = [other for other in known if other._meta.label_lower == proxy.lower()]
        if not found:
            raise PayloadError(f"expected a model with the table of {model._meta.label}, received {proxy[:80]!r}.")
        model = found[0]
    content_type = _content_type_manager(kind.database).get_for_model(model, for_concrete_model=not proxy)
    return content_type.pk, key_value(pk, key)


def pointing_to(instance: models.Model, field: GenericForeignKey, using: str) -> dict[str, Any] | None:
    """Return the conditions for rows whose generic foreign key ``field`` points to ``instance``.

    ``None`` means that none can: the column of the object's key cannot hold the primary key of ``instance``.
    """
    column: Any = field.model._meta.get_field(field.fk_field)
    try:
        key = column.to_python(instance.pk)
    except (ValidationError, ValueError, TypeError):
        return None
    table = instance._meta.concrete_model
    same_table = [model for model in apps.get_models() if model._meta.concrete_model is table]
    found = _content_type_manager(using).get_for_models(*same_table, for_concrete_models=False)
    return {f"{field.ct_field}__in": [content_type.pk for content_type in found.values()], field.fk_field: key}


def _content_type_manager(using: str) -> Any:
    from django.contrib.contenttypes.models import ContentType

    return ContentType.objects.db_manager(using)


def members(kind: Kind, relation: Association, keys: Collection[str]) -> dict[str, list[str]]:
    """Return the local keys of the members that are associated with the rows ``keys``, by local key of the row."""
    field = relation.field
    source, target = (relation.through._meta.get_field(name) for name in _ends(field))
    own, other = kind.model._meta.pk, relation.model._meta.pk
    found: dict[str, list[str]] = defaultdict(list)
    for chunk in chunks(keys):
        rows = all_rows(relation.through, kind.database).filter(
            **{f"{source.attname}__in": key_values(own, chunk)}  # type: ignore[union-attr]
        )
        for here, there in rows.values_list(source.attname, target.attname):  # type: ignore[union-attr]
            found[key_text(own, here)].append(key_text(other, there))
    return found


def owners_of(relation: Association, instance: models.Model, using: str) -> list[Any]:
    """Return the primary keys of the rows that have ``instance`` as a member."""
    field: Any = relation.field
    owner: Any = relation.through._meta.get_field(field.m2m_field_name())
    rows = all_rows(relation.through, using).filter(**{field.m2m_reverse_field_name(): instance.pk})
    return list(rows.values_list(owner.attname, flat=True))


def association_texts(
    kind: Kind,
    relation: Association,
    keys: Collection[str],
    waiting: Mapping[str, Iterable[UUID]],
    *,
    allocate: bool,
    own: Mapping[str, UUID],
) -> dict[str, Text]:
    """Return the texts of ``relation`` for the rows ``keys``; ``waiting`` are the members without a row here.

    ``own`` are the uuids of the rows that are not tracked yet, by local key.
    """
    target = registry.of_model(relation.model)
    found = members(kind, relation, keys)
    if target is None:
        return _natural_lists(kind, relation, keys, found)
    wanted = {key for others in found.values() for key in others}
    known = own if relation.is_symmetrical else {}  # the members are rows of the same kind
    if relation.is_symmetrical:
        wanted |= set(keys)
    uuids = {**uuids_of(target, wanted - known.keys(), allocate=allocate), **known}
    texts: dict[str, Text] = {}
    for key in keys:
        listed = {uuids[other] for other in found.get(key, ()) if other in uuids}
        if relation.is_symmetrical:
            listed = {uuid for uuid in listed if key not in uuids or str(uuid) >= str(uuids[key])}
        texts[key] = association_text({*listed, *waiting.get(key, ())})
    return texts


def paired_elsewhere(kind: Kind, key: str, candidates: Collection[str], uuid: UUID | None = None) -> set[str]:
    """Return the rows among ``candidates``, local keys, that hold the pair with the row ``key``.

    The association is symmetrical. ``uuid`` is that of the row, if it is not tracked yet.
    """
    uuids = uuids_of(kind, {key, *candidates}, allocate=False)
    if uuid is not None:
        uuids[key] = uuid
    return {candidate for candidate in candidates if str(uuids[candidate]) < str(uuids[key])}


def _natural_lists(
    kind: Kind, relation: Association, keys: Iterable[str], found: Mapping[str, Sequence[str]]
) -> dict[str, Text]:
    """Return the texts of an association to rows of a model that is not registered, by their natural keys."""
    pk = relation.model._meta.pk
    wanted = {key for others in found.values() for key in others}
    natural: dict[str, str] = {}
    for chunk in chunks(wanted):
        rows = all_rows(relation.model, kind.database).filter(pk__in=key_values(pk, chunk))
        natural.update((key_of(row), _natural_text(row).removeprefix(NATURAL)) for row in rows)
    return {key: natural_text(natural[other] for other in found.get(key, ()) if other in natural) for key in keys}


def set_members(kind: Kind, relation: Association, key: str, wanted: Iterable[str]) -> None:
    """Make the rows with the keys ``wanted`` the members of the row ``key``."""
    instance = kind.model(pk=key_value(kind.model._meta.pk, key))
    instance._state.db, instance._state.adding = kind.database, False
    pk = relation.model._meta.pk
    manager: Any = getattr(instance, relation.field.name)
    manager.set([key_value(pk, other) for other in wanted])


def _ends(field: Any) -> tuple[str, str]:
    return field.m2m_field_name(), field.m2m_reverse_field_name()
