"""Erase what is stored of one resource beside its row: former versions, entries, unknown elements and results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Q

from ...core.state import SyncState
from ...models import ChildResource, ConflictRecord, DeferredEntry, RunResult, TrackedResource
from ...turns import write_transaction
from ..content.children import read_children
from ..content.deferred import forget
from ..db.clock import now
from ..log.digests import lock_digest
from ..log.wakeup import wake_after_commit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...core.digest import Digest
    from ...kind import Kind

#: How many aliases of one resource are followed.
MAX_ALIASES = 100


@dataclass(frozen=True, kw_only=True)
class Erased:
    """The outcome of an erasure.

    ``conflicts``, ``deferred``, ``unknown`` and ``results`` count what was erased here: conflict records, deferred
    entries, stored texts of elements that this node does not know, and reported results. ``has_row`` is True if the row
    is still here. ``kept_by`` are the enabled peers that may still have the resource: they do not have its deletion, or
    their digest is not known.
    """

    conflicts: int
    deferred: int
    unknown: int
    results: int
    has_row: bool
    kept_by: tuple[str, ...]


def erase(kind: Kind, uuid: UUID, peers: Mapping[str, Digest | None]) -> Erased:
    """Erase former versions, entries, unknown elements and results of the resource ``uuid`` and of its aliases.

    The row itself is not deleted: that is a change, which the application makes and which is sent to the peers. Unknown
    elements of a row that is still here are erased as a change of this node. ``peers`` are the known digests of the
    enabled peers by name.

    Raises:
        LookupError: this node does not know the resource.
    """
    using = kind.database
    with write_transaction(using):
        stored = lock_digest(kind)
        tracked = _with_aliases(kind, uuid)
        if not tracked:
            raise LookupError(f"This node does not know a resource {uuid} of {kind.name}.")
        pks = [row.pk for row in tracked]
        conflicts, _ = ConflictRecord.objects.using(using).filter(resource__in=pks).delete()
        deferred = DeferredEntry.objects.using(using).filter(resource__in=pks).count()
        forget(kind, tracked)
        unknown = _erase_unknown(kind, tracked)
        results, _ = RunResult.objects.filter(run__kind=kind.name, uuid__in=[row.uuid for row in tracked]).delete()
        has_row = any(row.local_key is not None for row in tracked)
        states = [
            SyncState(endpoint=stored.endpoint_url(row.endpoint_id), tick=row.tick, stamp=row.stamp)
            for row in tracked
            if row.endpoint_id is not None and row.tick is not None and row.tick >= 0
        ]
    kept_by = tuple(
        name
        for name, digest in peers.items()
        if has_row or digest is None or not all(digest.contains(state) for state in states)
    )
    return Erased(
        conflicts=conflicts, deferred=deferred, unknown=unknown, results=results, has_row=has_row, kept_by=kept_by
    )


def _with_aliases(kind: Kind, uuid: UUID) -> list[TrackedResource]:
    """Return the resource, the resource that it is an alias of, and the aliases of both."""
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    found: dict[UUID, TrackedResource] = {}
    wanted = {uuid}
    while wanted and len(found) < MAX_ALIASES:
        new = [row for row in rows.filter(Q(uuid__in=wanted) | Q(replaced_by__in=wanted)) if row.uuid not in found]
        found.update((row.uuid, row) for row in new)
        wanted = {row.uuid for row in new} | {row.replaced_by for row in new if row.replaced_by is not None}
        wanted -= found.keys() - {row.uuid for row in new}
    return list(found.values())


def _erase_unknown(kind: Kind, tracked: list[TrackedResource]) -> int:
    """Erase the stored elements that this node does not know, of the resources and of their children."""
    using = kind.database
    rows = TrackedResource.objects.using(using).filter(pk__in=[row.pk for row in tracked]).exclude(extra="")
    with_row = rows.filter(local_key__isnull=False)
    changed = list(with_row.values_list("pk", flat=True))
    count = rows.update(extra="")
    keys = [row.local_key for row in tracked if row.local_key is not None]
    for children in kind.child_lists if keys else ():
        owned, _ = read_children(children, keys)
        known = ChildResource.objects.using(using).filter(kind=children.kind.name, local_key__in=list(owned))
        erased = known.exclude(extra="").update(extra="")
        count += erased
        if erased:
            changed += [row.pk for row in tracked if row.local_key in set(owned.values())]
    if changed:
        TrackedResource.objects.using(using).filter(pk__in=changed).update(mark=now(), restamp=True, is_intent=False)
        wake_after_commit(kind.name, using)
    return count
