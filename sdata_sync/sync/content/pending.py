"""Store pending references, and write them into their rows when the targets arrive.

A pending reference without a name belongs to a deferred entry, which is retried when the target has arrived.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import Q

from ...exceptions import PayloadError
from ...models import PendingReference, TrackedResource
from ...relations import Association, ReceivedList, Relation
from ..db.isolation import check_deferred_constraints, row_guard
from ..db.prepared import PreparedQuery
from ..db.statements import chunks
from ..log.keys import key_value
from ..log.suppression import applying
from .references import members, set_members
from .resolve import ReferenceCache, Target, members_of, reference_values

if TYPE_CHECKING:
    from ...kind import Kind

logger = logging.getLogger(__name__)

_any_pending: PreparedQuery[PendingReference] = PreparedQuery(
    lambda kind: PendingReference.objects.filter(resource__kind=kind).order_by().values_list("pk")[:1], str
)
_kinds_waiting: PreparedQuery[PendingReference] = PreparedQuery(
    lambda kind: (
        PendingReference.objects.filter(kind=kind).order_by().values_list("resource__kind", flat=True).distinct()
    ),
    str,
)
#: The maximum number of pending references that are read together.
BATCH = 1000


def store_pending(
    kind: Kind, pending: Mapping[int, Mapping[str, Sequence[Target]]], *, replaced: Iterable[int] = ()
) -> None:
    """Store the pending references of resources, by primary key of the TrackedResource; set ``is_incomplete``.

    The pending references of the resources ``replaced`` (primary keys) are deleted first.
    """
    references = PendingReference.objects.using(kind.database)
    incomplete = {pk for pk, names in pending.items() if any(names)}
    if replaced := list(replaced):
        deleted, _ = references.filter(resource__in=replaced).delete()
        if deleted:  # a row without pending references is not incomplete
            _set_incomplete(kind, set(replaced) - incomplete, False)
    if incomplete:
        _set_incomplete(kind, incomplete, True)
    references.bulk_create(
        (
            PendingReference(resource_id=pk, name=name, kind=kind_name, uuid=uuid)
            for pk, names in pending.items()
            for name, targets in names.items()
            for kind_name, uuid in dict.fromkeys(targets)
        ),
        ignore_conflicts=True,
    )


def _set_incomplete(kind: Kind, pks: Collection[int], is_incomplete: bool) -> None:
    """Set ``is_incomplete`` of resources: True if their rows lack references that are pending."""
    for chunk in chunks(pks):
        rows = TrackedResource.objects.using(kind.database).filter(pk__in=chunk)
        rows.exclude(is_incomplete=is_incomplete).update(is_incomplete=is_incomplete)


def is_waiting(kind: Kind) -> bool:
    """Return True if a row or entry of ``kind`` has a pending reference."""
    return bool(_any_pending.rows(kind.database, kind.name))


def kinds_waiting_for(kind: Kind) -> list[str]:
    """Return the other kinds with pending references to a row of ``kind``."""
    found = _kinds_waiting.rows(kind.database, kind.name)
    return [kind_name for (kind_name,) in found if kind_name != kind.name]


def fill_in(kind: Kind) -> list[int]:
    """Write the pending references of ``kind`` whose targets have arrived; the caller holds the digest's lock.

    Return the primary keys of the deferred resources that have no pending reference any more.
    """
    if not is_waiting(kind):
        return []
    references = PendingReference.objects.using(kind.database).filter(resource__kind=kind.name)
    ready: set[int] = set()
    last = 0
    while batch := list(references.filter(pk__gt=last).select_related("resource").order_by("pk")[:BATCH]):
        ready |= _fill_in(kind, batch)
        last = batch[-1].pk
    return sorted(ready)


def _fill_in(kind: Kind, batch: list[PendingReference]) -> set[int]:
    known = ReferenceCache()
    known.look_up((reference.kind, reference.uuid) for reference in batch)
    come = [reference for reference in batch if known.key((reference.kind, reference.uuid)) is not None]
    by_name = {relation.name: relation for relation in kind.relations}
    waited: set[int] = set()
    incomplete: dict[int, TrackedResource] = {}
    for reference in list(come):
        if not reference.name:
            waited.add(reference.resource_id)
        elif (relation := by_name.get(reference.name)) is not None and reference.resource.local_key is not None:
            if not _is_written(kind, relation, reference, known):
                come.remove(reference)
                continue
            incomplete[reference.resource_id] = reference.resource
    references = PendingReference.objects.using(kind.database)
    references.filter(pk__in=[reference.pk for reference in come]).delete()
    left = set(references.filter(resource__in=[*waited, *incomplete]).values_list("resource_id", flat=True))
    _set_incomplete(kind, incomplete.keys() - left, False)
    return waited - left


def _is_written(kind: Kind, relation: Relation, reference: PendingReference, known: ReferenceCache) -> bool:
    """Write one reference into its row; return False, and log why, if that row cannot take it."""
    try:
        with row_guard(kind.database):
            _write(kind, relation, reference, known)
            check_deferred_constraints()
        return True
    except PayloadError as error:
        key = reference.resource.local_key
        logger.warning("%s('%s'): pending reference %s cannot be written: %s", kind.name, key, relation.name, error)
        return False


def _write(kind: Kind, relation: Relation, reference: PendingReference, known: ReferenceCache) -> None:
    """Write one reference into its row. This is no change of the row: the reference was part of its content before."""
    key = reference.resource.row_key
    target = (reference.kind, reference.uuid)
    with applying(kind.name, keys=[key]):
        if isinstance(relation, Association):
            received = ReceivedList(False, frozenset([reference.uuid]), frozenset())
            present = members(kind, relation, [key])
            set_members(kind, relation, key, members_of(kind.database, relation, received, present, key, known))
            return
        values: dict[str, Any] = dict(
            zip(relation.columns, reference_values(kind, relation, target, known.key(target) or ""), strict=True)
        )
        empty = Q(**{f"{column}__isnull": True for column in relation.columns})
        kind.rows().filter(empty, pk=key_value(kind.model._meta.pk, key)).update(**values)


def hand_over(kind: Kind, old: int, new: int) -> None:
    """Move the pending references of ``old`` to ``new``, which has its row now; both are primary keys."""
    references = PendingReference.objects.using(kind.database)
    if references.filter(resource=old).exists():
        references.filter(resource=new).delete()
        references.filter(resource=old).update(resource=new)
        _set_incomplete(kind, [old], False)
        _set_incomplete(kind, [new], references.filter(resource=new).exclude(name="").exists())


def drop_overruled(kind: Kind, contents: Mapping[int, Sequence[str | None]]) -> None:
    """Delete pending references whose property was set to another value meanwhile.

    ``contents`` are the contents of the resources by primary key of their TrackedResource.
    """
    if not contents:
        return
    position = {relation.name: len(kind.properties) + index for index, relation in enumerate(kind.relations)}
    overruled: list[int] = []
    left: dict[int, int] = defaultdict(int)
    references = PendingReference.objects.using(kind.database).filter(resource__in=list(contents))
    for pk, owner, name, uuid in references.values_list("pk", "resource_id", "name", "uuid"):
        text = contents[owner][position[name]] if name in position else None
        if str(uuid) in (text or "").split():
            left[owner] += 1
        else:
            overruled.append(pk)
    PendingReference.objects.using(kind.database).filter(pk__in=overruled).delete()
    complete = [pk for pk in contents if not left[pk]]
    _set_incomplete(kind, complete, False)
