"""Purge the tombstones that every peer has, and erase resources; the peers' digests are read before (network)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

from ..conf import conf
from ..exceptions import PeerError
from ..models import ConflictRecord, Peer
from ..registry import registry
from ..sync.stamp.erase import Erased, erase
from ..sync.stamp.purge import Purged, purge
from ..sync.stamp.stamper import assign_ticks
from .client import PeerClient
from .lease import known_digest, read_stream

if TYPE_CHECKING:
    from uuid import UUID

    from ..core.digest import Digest
    from ..kind import Kind


def purge_all(*, older_than: timedelta | None = None, dry_run: bool = False) -> Iterator[tuple[str, Purged]]:
    """Purge kind by kind, and yield each kind with its outcome; see ``sync.stamp.purge.purge``."""
    peers = list(Peer.objects.filter(enabled=True))
    for kind in registry:
        digests = {peer.name: _digest(peer, kind.name) for peer in peers}
        yield kind.name, purge(kind, digests, older_than=older_than, dry_run=dry_run)


def erase_everywhere(kind: Kind, uuid: UUID) -> Erased:
    """Erase what this node stores of a resource beside its row, and find the peers that may still have it (network).

    Raises:
        LookupError: this node does not know the resource.
    """
    assign_ticks(kind)
    peers = Peer.objects.filter(enabled=True)
    return erase(kind, uuid, {peer.name: _digest(peer, kind.name) for peer in peers})


def forget_conflicts(*, dry_run: bool = False) -> dict[str, int]:
    """Delete the conflict records that are older than ``KEEP_CONFLICTS_DAYS``; return their number by kind."""
    before = timezone.now() - timedelta(days=conf.keep_conflicts_days)
    counts = {}
    for kind in registry:
        old = ConflictRecord.objects.using(kind.database).filter(resource__kind=kind.name, decided_at__lt=before)
        counts[kind.name] = old.count() if dry_run else old.delete()[0]
    return counts


def _digest(peer: Peer, kind: str) -> Digest | None:
    """Return the digest of the peer (network); if it cannot be read, the last known one or ``None``."""
    try:
        with PeerClient.for_peer(peer) as client:
            return client.read_digest(kind)
    except PeerError:
        return known_digest(read_stream(peer, kind))
