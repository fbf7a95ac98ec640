"""Remove tombstones that every peer has, or that are older than a given time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef, Q, QuerySet

from ...core.text import fold
from ...models import (
    ConflictRecord,
    DeferredEntry,
    DigestEntry,
    Endpoint,
    OversizeVersion,
    Peer,
    PendingReference,
    ScopedResource,
    TrackedResource,
)
from ...turns import write_transaction
from ..db.clock import now
from ..db.statements import chunks, locked
from ..log.digests import load_digest, lock_digest

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind


@dataclass(frozen=True, kw_only=True)
class Purged:
    """Hold how many tombstones were removed and how many were kept.

    ``missed_by`` names the peers that lack a removed tombstone, and so will not learn of that deletion.
    """

    removed: int
    kept: int
    missed_by: tuple[str, ...]


def purge(kind: Kind, peers: Mapping[str, Digest | None], *, older_than: timedelta | None, dry_run: bool) -> Purged:
    """Remove the tombstones that all ``peers`` have, and with ``older_than`` all tombstones of a greater age.

    ``peers`` are the known digests of the enabled peers by name. A peer whose digest is not known (``None``) may lack
    every tombstone. With ``dry_run`` the tombstones are only counted.
    """
    stones = TrackedResource.objects.using(kind.database).filter(
        kind=kind.name,
        is_deleted=True,
        is_deferred=False,
        local_key__isnull=True,
        mark__isnull=True,
    )
    # A tombstone may stand for the only copy of an entry that is kept aside.
    stones = stones.exclude(Exists(DeferredEntry.objects.using(kind.database).filter(resource=OuterRef("pk"))))
    settled = _contained(kind, stones, list(peers.values()))
    chosen = settled
    missed_by: tuple[str, ...] = ()
    if older_than is not None:
        limit = now() - int(older_than.total_seconds() * 1000)
        old = stones.filter(stamp__lt=limit)
        missed_by = tuple(
            name
            for name, digest in peers.items()
            if old.exclude(pk__in=_contained(kind, old, [digest]).values("pk")).exists()
        )
        chosen = stones.filter(Q(pk__in=settled.values("pk")) | Q(stamp__lt=limit))
    total, removed = stones.count(), chosen.count()
    if not dry_run:
        _remove(kind, chosen)
    return Purged(removed=removed, kept=total - removed, missed_by=missed_by)


def _contained(
    kind: Kind, stones: QuerySet[TrackedResource], digests: list[Digest | None]
) -> QuerySet[TrackedResource]:
    """Return those of ``stones`` that every digest contains; all of them if there are no digests."""
    if any(digest is None for digest in digests):
        return stones.none()
    everywhere = Q()
    stored = load_digest(kind)
    # Without peers no node can lack a tombstone.
    for entry in stored.value if digests else ():
        tick = min(digest.tick(entry.endpoint) for digest in digests if digest is not None)
        everywhere |= Q(endpoint_id=stored.ensure_endpoint_id(entry.endpoint), tick__lt=tick)
    return stones.filter(everywhere)


def _remove(kind: Kind, chosen: QuerySet[TrackedResource]) -> None:
    # In chunks and without Django's collector: rows that refer to a tombstone are deleted explicitly.
    while _remove_some(kind, chosen):
        pass


def _remove_some(kind: Kind, chosen: QuerySet[TrackedResource]) -> bool:
    with write_transaction(kind.database):
        lock_digest(kind)  # so that no page applies a newer version or revives a resource meanwhile
        stones = list(locked(chosen, kind.database)[:500])
        pks = [row.pk for row in stones]
        _raise_floors(kind, stones)
        for model in (ConflictRecord, DeferredEntry, OversizeVersion, PendingReference, ScopedResource):
            model._default_manager.using(kind.database).filter(resource__in=pks).delete()
        TrackedResource.objects.using(kind.database).filter(pk__in=pks)._raw_delete(kind.database)
    return bool(pks)


def _raise_floors(kind: Kind, stones: Iterable[TrackedResource]) -> None:
    """Raise the purge floors of the endpoints of ``stones``: an unknown version with a tick below the floor is old."""
    highest: dict[int, int] = {}
    for row in stones:
        if row.endpoint_id is not None and row.tick is not None:
            highest[row.endpoint_id] = max(highest.get(row.endpoint_id, 0), row.tick + 1)
    for endpoint, tick in highest.items():
        DigestEntry.objects.using(kind.database).filter(
            digest=kind.name, endpoint=endpoint, purge_floor__lt=tick
        ).update(purge_floor=tick)


def forget_endpoints(kind: Kind, *, dry_run: bool) -> int:
    """Remove from the digest the endpoints of which this node has no version, and return their number.

    Claims of received digests about them are ignored until a version of theirs arrives. The endpoints of this node and
    of its peers stay. With ``dry_run`` the endpoints are only counted.
    """
    with write_transaction(kind.database):
        lock_digest(kind)
        versions = TrackedResource.objects.using(kind.database).filter(kind=kind.name, endpoint=OuterRef("endpoint"))
        stays = {fold(kind.endpoint), *(fold(peer.endpoint(kind.name)) for peer in Peer.objects.all())}
        entries = DigestEntry.objects.using(kind.database).filter(~Exists(versions), digest=kind.name)
        found = entries.exclude(endpoint__key__in=stays)
        pks = list(found.values_list("endpoint_id", flat=True))
        if not dry_run:
            for chunk in chunks(pks):
                Endpoint.objects.using(kind.database).filter(pk__in=chunk).update(is_forgotten=True)
                entries.filter(endpoint__in=chunk)._raw_delete(kind.database)
    return len(pks)
