"""Lowering a clock that was driven out of reach: what the peers have of it is asked first (network)."""

from __future__ import annotations

from contextlib import closing

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..core.state import same_endpoint
from ..exceptions import PeerError
from ..models import Peer
from ..resources import SyncResource
from ..sync.renumbering import HIGHEST_USABLE, Lowered, confirm, renumber
from .client import PeerClient
from .inventory import take_inventory


def renumber_above_peers(resource: SyncResource) -> tuple[Lowered, dict[str, str]]:
    """Lower this node's tick above every version of its that is known here and at the peers that answer.

    Returns the ticks, and what each enabled peer came to: "asked", or why it could not be asked.
    """
    highest, outcomes = 0, dict[str, str]()
    for peer in Peer.objects.filter(enabled=True):
        try:
            highest = max(highest, _highest_at(peer, resource))
            outcomes[peer.name] = "asked"
        except (PeerError, ImproperlyConfigured, TypeError) as error:
            outcomes[peer.name] = f"not asked: {error}"
    return renumber(resource, highest), outcomes


def _highest_at(peer: Peer, resource: SyncResource) -> int:
    with closing(PeerClient(peer.url, conf.credentials(peer.credentials))) as client:
        ticks = (
            entry.state.tick
            for entries in take_inventory(client, peer, resource)
            for entry in entries
            if same_endpoint(entry.state.endpoint, resource.endpoint) and entry.state.tick <= HIGHEST_USABLE
        )
        return max(ticks, default=0)


def confirm_with(peer: Peer, resource: SyncResource) -> Lowered:
    """Lower our entry for the endpoint of ``peer`` to what its own ``$syncDigest`` says.

    Raises:
        PeerError: the peer does not answer.
        ImproperlyConfigured: there are no credentials of that name.
    """
    with closing(PeerClient(peer.url, conf.credentials(peer.credentials))) as client:
        return confirm(resource, peer.endpoint(resource.kind), client.read_digest(resource.kind))
