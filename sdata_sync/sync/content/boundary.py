"""Check that what a peer with a part of the rows writes stays within its part (``SyncResource.queryset_for``).

A version may not concern a row outside the part, refer to one that it did not refer to before, take a child from one,
or leave the part. A deletion may not delete or change rows outside the part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models

from ...atom.payload import Payload
from ...exceptions import OutOfPart
from ...kind import Kind, all_rows
from ...models import ChildResource
from ...registry import registry
from ...relations import NATURAL, Children, Reading, ReceivedChildren
from ..db.statements import chunks
from ..log.keys import key_text, key_value
from ..scope import RowScope
from .cascade import taken_along
from .contents import LocalVersion
from .references import keys_of
from .resolve import targets_of

if TYPE_CHECKING:
    from ...models import TrackedResource
    from .resolve import RowChange, Target


def check_reading(scope: RowScope, tracked: TrackedResource, instance: models.Model | None, reading: Reading) -> None:
    """Check what a received version refers to, and which children it has.

    Raises:
        OutOfPart: a new reference names a row outside the part, or a child belongs to one.
    """
    kind = scope.kind
    outside = _outside(scope, set(targets_of(kind, reading)))
    if outside and outside - _present_targets(kind, tracked, instance):
        raise OutOfPart
    if any(_is_natural(scope, kind, name, received) for name, received in reading.related.items()):
        raise OutOfPart
    own = None if instance is None else instance.pk
    for children, uuids in _children(kind, reading):
        parents = _parents_of(children, uuids) - {own}
        if parents and {key_text(kind.model._meta.pk, pk) for pk in parents} - scope.among(
            key_text(kind.model._meta.pk, pk) for pk in parents
        ):
            raise OutOfPart


def _outside(scope: RowScope, targets: set[Target]) -> set[Target]:
    by_kind: dict[str, set[UUID]] = defaultdict(set)
    for kind_name, uuid in targets:
        by_kind[kind_name].add(uuid)
    outside: set[Target] = set()
    for kind_name, uuids in by_kind.items():
        target = registry.of_kind(kind_name)
        bounds = None if target is None else scope.of(target)
        if target is None or bounds is None:
            continue
        keys = keys_of(target, uuids)
        allowed = bounds.among(keys.values())
        outside.update((kind_name, uuid) for uuid, key in keys.items() if key not in allowed)
    return outside


def _present_targets(kind: Kind, tracked: TrackedResource, instance: models.Model | None) -> set[Target]:
    """Return what the row refers to now: a complete payload repeats these references."""
    if instance is None:
        return set()
    payload = LocalVersion(kind, tracked, instance, allocate=True).payload
    return set(targets_of(kind, kind.decode(Payload.from_xml(payload)))) if payload else set()


def _is_natural(scope: RowScope, kind: Kind, name: str, received: Any) -> bool:
    """Return True if a reference names a row of a kind that the peer has a part of by its natural key."""
    if not (isinstance(received, str) and received.startswith(NATURAL)):
        return False
    relation = next(relation for relation in kind.relations if relation.name == name)
    target = registry.of_model(getattr(relation, "model", None))  # type: ignore[arg-type]
    return target is not None and scope.of(target) is not None


def _children(kind: Kind, reading: Reading) -> Iterator[tuple[Children, set[UUID]]]:
    for relation in kind.child_lists:
        received = reading.related.get(relation.name)
        if isinstance(received, ReceivedChildren):
            yield relation, {child.uuid for child in received.children if child.uuid is not None}


def _parents_of(children: Children, uuids: Iterable[UUID]) -> set[Any]:
    """Return the primary keys of the parents that have the children ``uuids`` now."""
    kind = children.kind
    parents: set[Any] = set()
    for chunk in chunks(uuids):
        known = ChildResource.objects.using(kind.database).filter(kind=kind.name, uuid__in=chunk)
        pks = [key_value(kind.model._meta.pk, key) for key in known.values_list("local_key", flat=True)]
        parents.update(
            all_rows(kind.model, kind.database).filter(pk__in=pks).values_list(children.link.attname, flat=True)
        )
    return parents


def check_deletions(kind: Kind, deletions: Sequence[RowChange]) -> None:
    """Set ``OutOfPart`` on each deletion that would delete or change rows outside the part of its sender."""
    for change in deletions:
        if change.part is not None and change.error is None and _reaches_outside(kind, change, change.part):
            change.error = OutOfPart("Rows that are not in the part of this login would be deleted or changed too.")


def _reaches_outside(kind: Kind, change: RowChange, scope: RowScope) -> bool:
    for other, keys in taken_along(kind, [change.instance]).items():
        bounds = scope.of(other)
        if bounds is not None and keys - bounds.among(keys):
            return True
    return any(_is_outside(scope, link, change.instance) for link in _emptied(kind))


def _emptied(kind: Kind) -> Iterator[models.ForeignKey[Any, Any]]:
    """Yield the foreign keys of registered kinds that a deletion of ``kind`` sets to another value."""
    for other in registry:
        for field in other.model._meta.concrete_fields:
            remote: Any = field.remote_field
            if remote is None or not isinstance(field, models.ForeignKey):
                continue
            is_kept = remote.on_delete in (models.CASCADE, models.PROTECT, models.RESTRICT, models.DO_NOTHING)
            if not is_kept and issubclass(kind.model, remote.model):
                yield field


def _is_outside(scope: RowScope, link: models.ForeignKey[Any, Any], instance: models.Model) -> bool:
    owner = registry.of_model(link.model)
    bounds = None if owner is None else scope.of(owner)
    if owner is None or bounds is None:
        return False
    value = getattr(instance, link.target_field.attname)
    rows = owner.rows().filter(**{link.attname: value})
    keys = {key_text(owner.model._meta.pk, pk) for pk in rows.values_list("pk", flat=True)}
    return bool(keys - bounds.among(keys))


def leaves_part(changes: Sequence[RowChange]) -> bool:
    """Return True if a written row is not in the part that it must be in; the changes have one sender."""
    bound = [change for change in changes if change.part is not None]
    if not bound or bound[0].part is None:
        return False
    keys = {change.local_key for change in bound}
    return bool(keys - bound[0].part.among(keys))
