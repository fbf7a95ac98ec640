"""Turn a received payload into a change of a row: uuids become local keys, missing targets are noted as pending."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
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
from .references import find_by_natural_key, generic_target, generic_values, keys_of, value_by_key
from .rows import existing_keys

if TYPE_CHECKING:
    from ...atom.payload import Text
    from ...core.state import SyncState
    from ...kind import Kind
    from .cascade import Taken
    from .conditions import Condition

#: Kind and uuid of something that is referred to.
Target = tuple[str, UUID]


class ReferenceCache:
    """The local keys of what a batch of payloads refers to, looked up together."""

    def __init__(self) -> None:
        self._keys: dict[Target, str | None] = {}

    def look_up(self, targets: Iterable[Target]) -> None:
        """Find out which of ``targets`` have a row here."""
        wanted: dict[str, set[UUID]] = defaultdict(set)
        for kind, uuid in targets:
            if (kind, uuid) not in self._keys:
                wanted[kind].add(uuid)
        for kind, uuids in wanted.items():
            resource = registry.of_kind(kind)
            found = {} if resource is None else keys_of(resource, uuids)
            # Not one whose row was deleted a moment ago, before anybody has numbered that.
            present = set() if resource is None else existing_keys(resource, found.values())
            for uuid in uuids:
                key = found.get(uuid)
                self._keys[kind, uuid] = key if key in present else None

    def forget(self, targets: Iterable[Target]) -> None:
        """Take ``targets`` for unknown: their rows are about to go."""
        self._keys.update(dict.fromkeys(targets))

    def key(self, target: Target) -> str | None:
        """Return the local key of ``target``, ``None`` if it has no row here."""
        if target not in self._keys:
            self.look_up([target])
        return self._keys[target]


@dataclass(kw_only=True, slots=True)
class ResolvedReferences:
    """What became of a reading's relations.

    ``columns`` were set on the instance. ``pending`` is what has not come yet, by property. ``lists`` are the
    associations and children, to be written when the row has its key.
    """

    columns: set[str] = field(default_factory=set)
    pending: dict[str, list[Target]] = field(default_factory=dict)
    lists: dict[str, ReceivedList | ReceivedChildren] = field(default_factory=dict)


def resolve_references(
    resource: Kind, instance: models.Model, reading: Reading, known: ReferenceCache
) -> ResolvedReferences:
    """Set the columns of ``instance`` that ``reading``'s relations stand on.

    Raises:
        PayloadError: something that the row cannot be without has not come yet (``waits_for``), or never will.
    """
    resolved = ResolvedReferences()
    for relation in resource.relations:
        if relation.name not in reading.related:
            continue
        received = reading.related[relation.name]
        if isinstance(received, ReceivedList | ReceivedChildren):
            _resolve_list(relation, received, known, resolved)
        else:
            try:
                _resolve_reference(resource, relation, instance, received, known, resolved)
            except PayloadError as error:
                path = f"{resource.element_name}/{relation.name}"
                raise PayloadError(f"In {path}: {error}", payload_path=path, waits_for=error.waits_for) from error
    return resolved


def _resolve_list(
    relation: Relation, received: ReceivedList | ReceivedChildren, known: ReferenceCache, resolved: ResolvedReferences
) -> None:
    resolved.lists[relation.name] = received
    if isinstance(received, ReceivedList):
        targets = list(_targets(relation, received))
        missing = [target for target in targets if known.key(target) is None]
        if missing:
            resolved.pending[relation.name] = missing


def _resolve_reference(
    resource: Kind,
    relation: Relation,
    instance: models.Model,
    text: Text,
    known: ReferenceCache,
    resolved: ResolvedReferences,
) -> None:
    values: Sequence[object] = (None,) * len(relation.columns)
    if text is not None and text.startswith(NATURAL) and isinstance(relation, Reference):
        values = (find_by_natural_key(resource, relation, text),)
    elif text is not None:
        [target] = _targets(relation, text)
        key = known.key(target)
        if key is not None:
            values = reference_values(resource, relation, target, key)
        elif relation.is_nullable:
            resolved.pending[relation.name] = [target]
        else:
            kind, uuid = target
            raise PayloadError(f"it refers to {kind} {uuid}, which has not come yet.", waits_for=[target])
    for column, value in zip(relation.columns, values, strict=True):
        setattr(instance, column, value)
        resolved.columns.add(column)


def reference_values(resource: Kind, relation: Relation, target: Target, key: str) -> Sequence[object]:
    """Return what the columns of ``relation`` hold to lead to ``target``, whose local key is ``key``."""
    if isinstance(relation, GenericReference):
        return generic_values(resource, generic_target(target[0]), key)
    assert isinstance(relation, Reference)
    return (value_by_key(resource, relation, key),)


def targets_of(resource: Kind, reading: Reading) -> Iterator[Target]:
    """Yield what ``reading`` refers to, its children too; what cannot be known here is left out."""
    for relation in resource.relations:
        if relation.name not in reading.related:
            continue
        received = reading.related[relation.name]
        if isinstance(received, ReceivedChildren):
            assert isinstance(relation, Children)
            for child in received.children:
                yield from targets_of(relation.resource, child.reading)
        elif received is not None and not (isinstance(received, str) and received.startswith(NATURAL)):
            try:
                yield from _targets(relation, received)
            except PayloadError:
                continue  # said when it is placed


def _targets(relation: Relation, received: Received) -> Iterator[Target]:
    if isinstance(received, ReceivedList):
        kind = _kind(relation)
        yield from ((kind, uuid) for uuid in sorted(received.uuids))
    elif isinstance(received, str):
        for kind, uuid in relation.uuids(received):
            yield (generic_target(kind).kind if kind else _kind(relation)), uuid


def _kind(relation: Relation) -> str:
    assert isinstance(relation, Reference | Association)
    target = registry.of_model(relation.model)
    if target is None:
        raise PayloadError(f"expected a natural key, since {relation.model._meta.label} is not registered here.")
    return target.kind


def members_of(
    relation: Association, received: ReceivedList, present: Mapping[str, Sequence[str]], key: str, known: ReferenceCache
) -> set[str]:
    """Return the local keys of the members that the row ``key`` has after ``received``, of those that are here."""
    kind = _kind(relation)
    added = {found for uuid in received.uuids if (found := known.key((kind, uuid))) is not None}
    if received.is_complete:
        return added
    removed = {known.key((kind, uuid)) for uuid in received.removed}
    return (set(present.get(key, ())) | added) - removed


class RowAction(StrEnum):
    """Name what a ``RowChange`` does to its row."""

    CREATE = "create"
    UPDATE = "update"
    #: Delete the row and the rows that go with it.
    DELETE = "delete"
    #: Delete the row alone: it leaves the partial replica of this node.
    WITHDRAW = "withdraw"


@dataclass(kw_only=True, eq=False)
class RowChange:
    """One row to be created, updated or deleted; ``error`` says afterwards why it was not.

    ``names`` are the columns that the entry brought; the instance has their values already. ``lists`` are its
    associations and children, to be written after it, ``pending`` is what it refers to that has not come yet.
    ``texts`` are afterwards the contents of the row as it stands.
    """

    instance: models.Model
    action: RowAction
    names: frozenset[str] = frozenset()
    #: Of a received deletion: what it waits for before it takes other rows along; ``None`` to take them at once.
    condition: Condition | None = None
    #: Of a deletion: the resources that go with it, as ``deletions.hold_back`` has found them.
    taken: Taken = field(default_factory=dict)
    #: Those of them whose own deletion has come and waits.
    waiting: Taken = field(default_factory=dict)
    lists: Mapping[str, ReceivedList | ReceivedChildren] = field(default_factory=dict)
    pending: Mapping[str, Sequence[Target]] = field(default_factory=dict)
    known: ReferenceCache = field(default_factory=ReferenceCache)
    #: The state of the version that it is written for, where there is one.
    state: SyncState | None = None
    texts: list[Text] = field(default_factory=list)
    error: PayloadError | None = None

    @property
    def is_new(self) -> bool:
        """Whether the change creates the row."""
        return self.action is RowAction.CREATE

    @property
    def is_deletion(self) -> bool:
        """Whether the change deletes the row, with the rows that go with it or alone."""
        return self.action in (RowAction.DELETE, RowAction.WITHDRAW)


def prepare_row(resource: Kind, instance: models.Model | None, reading: Reading, known: ReferenceCache) -> RowChange:
    """Return the change that ``reading`` makes to the row of ``instance``, or, if that is ``None``, to a new one.

    Raises:
        PayloadError: the row cannot become what it says.
    """
    action = RowAction.CREATE if instance is None else RowAction.UPDATE
    instance = resource.model() if instance is None else instance
    names = set_values(instance, reading.values, is_new=action is RowAction.CREATE)
    if not resource.relations:
        return RowChange(instance=instance, names=names, action=action, known=known)
    resolved = resolve_references(resource, instance, reading, known)
    return RowChange(
        instance=instance,
        names=names | resolved.columns,
        action=action,
        pending=resolved.pending,
        lists=resolved.lists,
        known=known,
    )


def keep_waiting(
    resource: Kind, change: RowChange, brought: Container[str], present: Mapping[str, Sequence[Target]]
) -> None:
    """Let the row wait on for what it waited for, ``present``, in the relations of which nothing was ``brought``."""
    columns = {relation.name: relation.columns for relation in resource.relations}
    kept = {
        name: targets
        for name, targets in present.items()
        if name not in brought and all(getattr(change.instance, c) is None for c in columns.get(name, ()))
    }
    change.pending = {**kept, **change.pending}


def set_values(instance: models.Model, values: Mapping[str, Any], *, is_new: bool) -> frozenset[str]:
    """Set what an entry brought on an instance, and return the names; the key of a row never changes."""
    names = frozenset(values) if is_new else frozenset(values) - {instance._meta.pk.attname}
    for name in names:
        setattr(instance, name, values[name])
    return names
