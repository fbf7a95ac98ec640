"""Reading a peer's digest, on which deletions that came from it may depend."""

from __future__ import annotations

from ..core.digest import Digest
from ..exceptions import PeerRefused
from ..models import Peer
from ..resources import SyncResource
from ..sync.conditions import answer_conditions, unanswered_conditions
from ..sync.deferring import settle_others
from .client import ABSENT, PeerClient

#: What a peer answers that does not share a kind, or not with this node.
_NOT_SHARED = (*ABSENT, 401, 403)


def read_digest_for_deletions(client: PeerClient, peer: Peer, resource: SyncResource) -> Digest:
    """Read the digest that ``peer`` has of ``resource`` (SData sync 5.1, network); note it for deletions from there.

    A source that does not say with a deletion what it has of other kinds is asked afterwards: see ``sync.conditions``.

    Raises:
        PeerError: the peer cannot be reached, or refuses to answer.
    """
    using, kind = resource.database, resource.kind
    conditions = unanswered_conditions(peer.endpoint(kind), kind, using)
    try:
        shown = client.read_digest(kind)
    except PeerRefused as refusal:
        if conditions and refusal.status in _NOT_SHARED:
            answer_conditions(conditions, kind, Digest(), using)
            settle_others(resource)
        raise
    if conditions:
        answer_conditions(conditions, kind, shown, using)
        settle_others(resource)
    return shown
