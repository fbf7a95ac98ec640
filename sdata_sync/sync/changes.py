"""Changes of rows that are to be written: what a payload makes of a row."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import models

from ..atom.payload import Text
from ..core.state import SyncState
from ..exceptions import PayloadError
from ..relations import Reading, ReceivedChildren, ReceivedList
from ..resources import SyncResource
from .conditions import Condition
from .reach import Taken
from .relations.placing import Known, Target, place


@dataclass(kw_only=True, eq=False)
class RowChange:
    """One row to be created, updated or deleted; ``error`` says afterwards why it was not.

    ``names`` are the columns that the entry brought; the instance has their values already. ``lists`` are its
    associations and children, to be written after it, ``pending`` is what it refers to that has not come yet.
    ``texts`` are afterwards the contents of the row as it stands.
    """

    instance: models.Model
    names: frozenset[str] = frozenset()
    is_new: bool = False
    is_deletion: bool = False
    #: Whether it only goes from here: then nothing goes with it.
    is_withdrawal: bool = False
    #: Of a received deletion: what it waits for before it takes other rows along; ``None`` to take them at once.
    condition: Condition | None = None
    #: Of a deletion: the resources that go with it, as ``deletions.hold_back`` has found them.
    taken: Taken = field(default_factory=dict)
    lists: Mapping[str, ReceivedList | ReceivedChildren] = field(default_factory=dict)
    pending: Mapping[str, Sequence[Target]] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    #: The state of the version that it is written for, where there is one.
    state: SyncState | None = None
    texts: list[Text] = field(default_factory=list)
    error: PayloadError | None = None


def prepare_row(resource: SyncResource, instance: models.Model | None, reading: Reading, known: Known) -> RowChange:
    """Return the change that ``reading`` makes to the row of ``instance``, or, if that is ``None``, to a new one.

    Raises:
        PayloadError: the row cannot become what it says.
    """
    is_new = instance is None
    instance = resource.model() if instance is None else instance
    names = set_values(instance, reading.values, is_new=is_new)
    if not resource.relations:
        return RowChange(instance=instance, names=names, is_new=is_new, known=known)
    placed = place(resource, instance, reading, known)
    return RowChange(
        instance=instance,
        names=names | placed.columns,
        is_new=is_new,
        pending=placed.pending,
        lists=placed.lists,
        known=known,
    )


def keep_waiting(
    resource: SyncResource, change: RowChange, brought: Container[str], present: Mapping[str, Sequence[Target]]
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
