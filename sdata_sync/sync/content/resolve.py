"""Turn a received payload into a change of a row: uuids become local keys or pending references."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models

from ...exceptions import PayloadError
from ...registry import registry
from ...relations import (
    NATURAL,
    Association,
    Children,
    GenericReference,
    Reading,
    Received,
    ReceivedChildren,
    ReceivedList,
    Reference,
    Relation,
)
from ..log.keys import key_of
from .references import find_by_natural_key, generic_target, generic_values, keys_of, paired_elsewhere, value_by_key
from .rows import existing_keys

if TYPE_CHECKING:
    from ...atom.payload import Text
    from ...core.state import SyncState
    from ...kind import Kind
    from ..scope import RowScope
    from .cascade import Taken
    from .conditions import Condition

#: The kind and uuid of a referenced resource.
Target = tuple[str, UUID]


class ReferenceCache:
    """Hold the local keys of the resources that a batch of payloads refers to, which are looked up together."""

    def __init__(self) -> None:
        self._keys: dict[Target, str | None] = {}
        self._natural: dict[tuple[type[models.Model], str], str] = {}

    def look_up(self, targets: Iterable[Target]) -> None:
        """Look up the rows of ``targets``."""
        wanted: dict[str, set[UUID]] = defaultdict(set)
        for kind_name, uuid in targets:
            if (kind_name, uuid) not in self._keys:
                wanted[kind_name].add(uuid)
        for kind_name, uuids in wanted.items():
            kind = registry.of_kind(kind_name)
            found = {} if kind is None else keys_of(kind, uuids)
            # A tracked row may have been deleted without a tick yet, so the rows themselves are looked up.
            present = set() if kind is None else existing_keys(kind, found.values())
            for uuid in uuids:
                key = found.get(uuid)
                self._keys[kind_name, uuid] = key if key in present else None

    def forget(self, targets: Iterable[Target]) -> None:
        """Treat ``targets`` as missing, because their rows are about to be deleted."""
        self._keys.update(dict.fromkeys(targets))

    def key(self, target: Target) -> str | None:
        """Return the local key of ``target``, or ``None`` if it has no row at this node."""
        if target not in self._keys:
            self.look_up([target])
        return self._keys[target]

    def key_of_natural(self, using: str, model: type[models.Model], text: str) -> str:
        """Return the local key of the row of ``model`` with the natural key ``text``.

        Raises:
            PayloadError: there is no such row.
        """
        if (model, text) not in self._natural:
            self._natural[model, text] = key_of(find_by_natural_key(using, model, text))
        return self._natural[model, text]


@dataclass(kw_only=True, slots=True)
class ResolvedReferences:
    """Hold the outcome of resolving the relations of a payload.

    ``values`` are the values by column. ``pending`` are the targets without a row, by property.
    ``lists`` are associations and children, which are written when the row has its key.
    """

    values: dict[str, Any] = field(default_factory=dict)
    pending: dict[str, list[Target]] = field(default_factory=dict)
    lists: dict[str, ReceivedList | ReceivedChildren] = field(default_factory=dict)


def resolve_references(
    kind: Kind, instance: models.Model, reading: Reading, known: ReferenceCache
) -> ResolvedReferences:
    """Set the columns of ``instance`` for the relations in ``reading``.

    Raises:
        PayloadError: a required reference has a target without a row (``waits_for``), or a reference cannot be read.
    """
    resolved = ResolvedReferences()
    for relation in kind.relations:
        if relation.name not in reading.related:
            continue
        received = reading.related[relation.name]
        try:
            if isinstance(received, ReceivedList | ReceivedChildren):
                _resolve_list(kind, relation, received, known, resolved)
            else:
                _resolve_reference(kind, relation, instance, received, known, resolved)
        except PayloadError as error:
            path = f"{kind.element_name}/{relation.name}"
            raise PayloadError(f"In {path}: {error}", payload_path=path, waits_for=error.waits_for) from error
    return resolved


def _resolve_list(
    kind: Kind,
    relation: Relation,
    received: ReceivedList | ReceivedChildren,
    known: ReferenceCache,
    resolved: ResolvedReferences,
) -> None:
    resolved.lists[relation.name] = received
    if isinstance(received, ReceivedList):
        assert isinstance(relation, Association)
        if received.natural and registry.of_model(relation.model) is not None:
            raise PayloadError(f"expected members with an sdata:uuid, received {min(received.natural)[:80]!r}.")
        for text in sorted(received.natural):
            known.key_of_natural(kind.database, relation.model, text)
        targets = list(_targets(relation, received))
        missing = [target for target in targets if known.key(target) is None]
        if missing:
            resolved.pending[relation.name] = missing


def _resolve_reference(
    kind: Kind,
    relation: Relation,
    instance: models.Model,
    text: Text,
    known: ReferenceCache,
    resolved: ResolvedReferences,
) -> None:
    values: Sequence[object] = (None,) * len(relation.columns)
    if text is not None and text.startswith(NATURAL) and isinstance(relation, Reference):
        row = find_by_natural_key(kind.database, relation.model, text)
        values = (getattr(row, relation.field.target_field.attname),)
    elif text is not None:
        [target] = _targets(relation, text)
        key = known.key(target)
        # A pending reference is stored without the label of a proxy model.
        proxy = text.partition(" ")[2].partition(" ")[2] if isinstance(relation, GenericReference) else ""
        if key is not None:
            values = reference_values(kind, relation, target, key, proxy)
        elif relation.is_nullable and not proxy:
            resolved.pending[relation.name] = [target]
        else:
            kind_name, uuid = target
            raise PayloadError(f"it refers to {kind_name} {uuid}, which has not arrived yet.", waits_for=[target])
    for column, value in zip(relation.columns, values, strict=True):
        setattr(instance, column, value)
        resolved.values[column] = value


def reference_values(kind: Kind, relation: Relation, target: Target, key: str, proxy: str = "") -> Sequence[object]:
    """Return the column values of ``relation`` for a reference to ``target``, whose local key is ``key``."""
    if isinstance(relation, GenericReference):
        return generic_values(kind, generic_target(target[0]), key, proxy)
    assert isinstance(relation, Reference)
    return (value_by_key(kind, relation, key),)


def targets_of(kind: Kind, reading: Reading) -> Iterator[Target]:
    """Yield the targets of ``reading`` and of its children, without those of unknown kinds."""
    for relation in kind.relations:
        if relation.name not in reading.related:
            continue
        received = reading.related[relation.name]
        if isinstance(received, ReceivedChildren):
            assert isinstance(relation, Children)
            for child in received.children:
                yield from targets_of(relation.kind, child.reading)
        elif received is not None and not (isinstance(received, str) and received.startswith(NATURAL)):
            try:
                yield from _targets(relation, received)
            except PayloadError:
                continue  # resolve_references() raises the error


def _targets(relation: Relation, received: Received) -> Iterator[Target]:
    if isinstance(received, ReceivedList):
        yield from ((_kind(relation), uuid) for uuid in sorted(received.uuids))
    elif isinstance(received, str):
        for kind, uuid in relation.uuids(received):
            yield (generic_target(kind).name if kind else _kind(relation)), uuid


def _kind(relation: Relation) -> str:
    assert isinstance(relation, Reference | Association)
    target = registry.of_model(relation.model)
    if target is None:
        raise PayloadError(f"expected a natural key, since {relation.model._meta.label} is not registered here.")
    return target.name


def members_of(
    using: str,
    relation: Association,
    received: ReceivedList,
    present: Mapping[str, Sequence[str]],
    key: str,
    known: ReferenceCache,
    uuid: UUID | None = None,
) -> set[str]:
    """Return the local keys of the members that the row ``key`` has after ``received``, without missing ones.

    ``uuid`` is that of the row, if it is not tracked yet.
    """
    standing = present.get(key, ())
    target = registry.of_model(relation.model)
    if target is None:
        return _natural_members(using, relation.model, received, standing, known)
    added = {found for member in received.uuids if (found := known.key((target.name, member))) is not None}
    if not received.is_complete:
        removed = {known.key((target.name, member)) for member in received.removed}
        return (set(standing) | added) - removed
    if relation.is_symmetrical and standing:
        added |= paired_elsewhere(target, key, standing, uuid)
    return added


def _natural_members(
    using: str, model: type[models.Model], received: ReceivedList, present: Iterable[str], known: ReferenceCache
) -> set[str]:
    added = {known.key_of_natural(using, model, text) for text in received.natural}
    if received.is_complete:
        return added
    removed = set()
    for text in received.removed_natural:
        with suppress(PayloadError):  # what does not exist is no member
            removed.add(known.key_of_natural(using, model, text))
    return (set(present) | added) - removed


class RowAction(StrEnum):
    """Name what a ``RowChange`` does to its row."""

    CREATE = "create"
    UPDATE = "update"
    #: Delete the row and the rows that are deleted with it.
    DELETE = "delete"
    #: Delete the row alone: it leaves the partial replica of this node.
    WITHDRAW = "withdraw"


@dataclass(kw_only=True, eq=False)
class RowChange:
    """Hold the change of one row.

    ``values`` are the stored values of the entry by column; ``instance`` has them as its attributes. ``lists`` are
    associations and children, which are written after the row. ``pending`` are the targets without a row, by property.
    After the write ``texts`` is the content of the row, or ``error`` is the reason why the row was not written.
    """

    instance: models.Model
    action: RowAction
    values: Mapping[str, Any] = field(default_factory=dict)
    #: Of a received deletion: the condition on which it may delete other rows; ``None`` for no condition.
    condition: Condition | None = None
    #: Of a deletion: the resources that are deleted with the row, as ``cascade.hold_back`` has found them.
    taken: Taken = field(default_factory=dict)
    #: Those of them that have a deferred deletion of their own.
    waiting: Taken = field(default_factory=dict)
    lists: Mapping[str, ReceivedList | ReceivedChildren] = field(default_factory=dict)
    pending: Mapping[str, Sequence[Target]] = field(default_factory=dict)
    known: ReferenceCache = field(default_factory=ReferenceCache)
    #: The sync state of the version that is written; ``None`` if there is none.
    state: SyncState | None = None
    texts: list[Text] = field(default_factory=list)
    error: PayloadError | None = None
    #: The bounds of the sender: the written row must lie in them, and so must what a deletion deletes or changes.
    part: RowScope | None = None
    #: The uuid of the resource, where it is known; a new row is not tracked before it is written.
    uuid: UUID | None = None

    @property
    def local_key(self) -> str:
        """Return the local key of the row, which has a primary key."""
        return key_of(self.instance)

    @cached_property
    def names(self) -> frozenset[str]:
        """Return the names of the columns of the entry."""
        return frozenset(self.values)

    @property
    def is_new(self) -> bool:
        """Return True if the change creates the row."""
        return self.action is RowAction.CREATE

    @property
    def is_deletion(self) -> bool:
        """Return True if the change deletes the row, alone or with other rows."""
        return self.action in (RowAction.DELETE, RowAction.WITHDRAW)


def prepare_row(kind: Kind, instance: models.Model | None, reading: Reading, known: ReferenceCache) -> RowChange:
    """Return the change that ``reading`` makes to the row of ``instance``, or to a new row if that is ``None``.

    Raises:
        PayloadError: a reference cannot be resolved, or a value cannot be set.
    """
    action = RowAction.CREATE if instance is None else RowAction.UPDATE
    instance = kind.model() if instance is None else instance
    values = reading.values
    kept: set[str] = set()
    if action is RowAction.UPDATE:  # the primary key of a row never changes
        kept = {kind.model._meta.pk.attname, *kind.key_columns}
        values = {name: value for name, value in values.items() if name not in kept}
    set_attributes(kind, instance, values)
    if not kind.relations:
        return RowChange(instance=instance, values=values, action=action, known=known)
    key = {name: getattr(instance, name) for name in kept if name in kind.relation_columns}
    resolved = resolve_references(kind, instance, reading, known)
    set_attributes(kind, instance, key)
    return RowChange(
        instance=instance,
        values={**values, **{name: value for name, value in resolved.values.items() if name not in kept}},
        action=action,
        pending=resolved.pending,
        lists=resolved.lists,
        known=known,
    )


def keep_waiting(
    kind: Kind, change: RowChange, brought: Container[str], present: Mapping[str, Sequence[Target]]
) -> None:
    """Keep the pending references ``present`` of the relations that the entry does not have (``brought``)."""
    columns = {relation.name: relation.columns for relation in kind.relations}
    kept = {
        name: targets
        for name, targets in present.items()
        if name not in brought and all(getattr(change.instance, c) is None for c in columns.get(name, ()))
    }
    change.pending = {**kept, **change.pending}


def set_attributes(kind: Kind, instance: models.Model, values: Mapping[str, Any]) -> None:
    """Set the attributes of ``instance`` for the stored ``values`` by column."""
    converters, paths = kind.converters, _path_columns(kind.model)
    for name, value in values.items():
        convert = converters.get(name)
        value = value if convert is None else convert(value)
        if name in paths:
            instance.__dict__[name] = value
        else:
            setattr(instance, name, value)


@cache
def _path_columns(model: type[models.Model]) -> frozenset[str]:
    """Return the columns that hold paths of files.

    Their descriptors are not used, because the one of an image opens the file, which may not have been fetched yet.
    """
    return frozenset(field.attname for field in model._meta.concrete_fields if isinstance(field, models.FileField))
