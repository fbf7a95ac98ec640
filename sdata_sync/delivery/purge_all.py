"""Purge the tombstones that every peer has; the digests of the peers are read before (network)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from ..exceptions import PeerError
from ..models import Peer
from ..registry import registry
from ..sync.stamp.purge import Purged, purge
from .client import PeerClient
from .lease import known_digest, read_stream

if TYPE_CHECKING:
    from ..core.digest import Digest


def purge_all(*, older_than: timedelta | None = None, dry_run: bool = False) -> Iterator[tuple[str, Purged]]:
    """Purge kind by kind, and yield each kind with its outcome; see ``sync.stamp.purge.purge``."""
    peers = list(Peer.objects.filter(enabled=True))
    for kind in registry:
        digests = {peer.name: _digest(peer, kind.name) for peer in peers}
        yield kind.name, purge(kind, digests, older_than=older_than, dry_run=dry_run)


def _digest(peer: Peer, kind: str) -> Digest | None:
    """Return the digest of the peer (network); if it cannot be read, the last known one or ``None``."""
    try:
        with PeerClient.for_peer(peer) as client:
            return client.read_digest(kind)
    except PeerError:
        return known_digest(read_stream(peer, kind))
