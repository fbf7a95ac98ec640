"""What a peer is to get from this node at once, and what must not be exchanged with it at all."""

from __future__ import annotations

from collections.abc import Callable

from ..core.digest import Digest
from ..core.selection import missing_ranges
from ..core.state import same_endpoint
from ..exceptions import FeedRefused, PeerError, PeerMisbehaved
from ..models import Peer
from ..resources import SyncResource
from ..sync import parts
from ..sync.digests import StoredDigest, load_digest
from ..sync.pages import is_own
from ..sync.scopes import owes


def wanted_by(peer: Peer, resource: SyncResource) -> Callable[[str], bool]:
    """Return which endpoints' changes are pushed to ``peer`` at once: our own, or with relay all but its own."""
    if not peer.relay:
        return is_own(resource)
    theirs = peer.endpoint(resource.kind)
    return lambda endpoint: not same_endpoint(endpoint, theirs)


def lags(peer: Peer, resource: SyncResource, stored: StoredDigest, known: Digest) -> bool:
    """Tell whether ``peer``, with the digest ``known``, lacks something that is to be pushed at once."""
    wanted = wanted_by(peer, resource)
    return owes(resource, peer) or any(wanted(missing.endpoint) for missing in missing_ranges(stored.value, known))


def refuse_ourselves(resource: SyncResource, shown: Digest) -> None:
    """Refuse a peer that has our own name, or one with which a part of the kind must not be exchanged.

    Raises:
        PeerMisbehaved
    """
    if shown.origin and same_endpoint(shown.origin, resource.endpoint):
        raise PeerMisbehaved(
            f"The peer calls itself {shown.origin}, and so are we called; two nodes must not have one BASE_URL."
        )
    try:
        parts.refuse_part(resource, load_digest(resource).value, shown)
    except FeedRefused as error:
        raise PeerMisbehaved(str(error)) from error


def refuse_part(peer: Peer, resource: SyncResource, stored: StoredDigest) -> None:
    """Refuse to give a part of a kind to anybody but the node that chose it.

    Raises:
        PeerError
    """
    chosen_by = stored.value.part_of
    if chosen_by and not same_endpoint(chosen_by, peer.endpoint(resource.kind)):
        raise PeerError(
            f"This node has only a part of the {resource.kind}, which {chosen_by} chooses; they are exchanged with "
            f"that node and with no other. Take them out of what {peer} gets, or let it have all of them."
        )
