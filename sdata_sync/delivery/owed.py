"""What a peer is to get from this node at once, and what must not be exchanged with it at all."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..conf import conf
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


def lags(
    peer: Peer, resource: SyncResource, stored: StoredDigest, known: Digest, *, left_out: Collection[str] = ()
) -> bool:
    """Return True if ``peer``, with the digest ``known``, lacks something that is to be pushed at once.

    ``left_out`` are endpoints, in lower case, of which the peer does not believe what our digest says.
    """
    wanted = wanted_by(peer, resource)
    return owes(resource, peer) or any(
        wanted(missing.endpoint) and missing.endpoint.lower() not in left_out
        for missing in missing_ranges(stored.value, known)
    )


def refuse_ourselves(resource: SyncResource, shown: Digest) -> None:
    """Refuse a peer that has our own name, that claims what cannot be true of us, or that must not have the kind.

    Raises:
        PeerMisbehaved: it is so.
    """
    refuse_false_claim(resource, load_digest(resource), shown)
    if shown.origin and same_endpoint(shown.origin, resource.endpoint):
        raise PeerMisbehaved(
            f"The peer calls itself {shown.origin}, and so are we called; two nodes must not have one BASE_URL."
        )
    try:
        parts.refuse_part(resource, load_digest(resource).value, shown)
    except FeedRefused as error:
        raise PeerMisbehaved(str(error)) from error


def refuse_false_claim(resource: SyncResource, stored: StoredDigest, shown: Digest) -> None:
    """Refuse a peer whose digest has a tick of ours that we cannot have recorded: it takes our changes for known.

    Raises:
        PeerMisbehaved: the tick is more than ``MAX_TICK_LEAP`` above ours.
    """
    ours, theirs = stored.value.tick(resource.endpoint), shown.tick(resource.endpoint)
    if theirs - ours > conf.max_tick_leap:
        raise PeerMisbehaved(
            f"The digest of {shown.origin or 'the peer'} says that this node is at tick {theirs}, which stands at "
            f"{ours}. So the peer would take every change of this node for known. Another node has told it so. Run "
            "`manage.py sync_rejoin --confirm NAME` on the peer, with its name for this node."
        )


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
