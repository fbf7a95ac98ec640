"""Ask a peer whether changes can be exchanged with it: reachable, logged in, kinds on both sides, its own name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.state import same_endpoint
from ..exceptions import PeerError, PeerRefused, PeerUnreachable
from .client import ABSENT, PeerClient

if TYPE_CHECKING:
    from ..kind import Kind
    from ..models import Peer


@dataclass
class Probe:
    """The answers of a peer: the kinds that it shares and that it does not have, and the problems with what to do."""

    shared: list[str] = field(default_factory=list)
    not_shared: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the answers as plain values for JSON."""
        return asdict(self)


def probe(peer: Peer, kinds: Iterable[Kind]) -> Probe:
    """Read the digest of each of ``kinds`` from ``peer`` (network), and return what was found."""
    found = Probe()
    try:
        with PeerClient.for_peer(peer) as client:
            for kind in kinds:
                _ask(client, peer, kind, found)
    except PeerError as error:
        found.problems.append(_advised(peer, error))
    if found.not_shared and not (found.shared or found.problems):
        found.problems.append(
            f"{peer} has none of the kinds of this node. Check that {peer.url} is the URL of its dataset, its BASE_URL."
        )
    return found


def _ask(client: PeerClient, peer: Peer, kind: Kind, found: Probe) -> None:
    try:
        shown = client.read_digest(kind.name)
    except PeerRefused as refusal:
        if refusal.status not in ABSENT:
            raise
        found.not_shared.append(kind.name)
        return
    found.shared.append(kind.name)
    theirs = peer.endpoint(kind.name)
    if shown.origin and same_endpoint(shown.origin, kind.endpoint):
        found.problems.append(
            f"{peer} calls itself {shown.origin}, as this node does. Give each node its own BASE_URL."
        )
    elif shown.origin and not same_endpoint(shown.origin, theirs):
        url = shown.origin.rpartition("/")[0]
        found.problems.append(f"{theirs} calls itself {shown.origin}. Remove the peer and add it as {url}.")


def _advised(peer: Peer, error: PeerError) -> str:
    if isinstance(error, PeerUnreachable):
        return f"{error} Check the URL, the network, and that the server of the peer runs."
    status = error.status if isinstance(error, PeerRefused) else 0
    if status == 401:
        return f"{error} Check the entry {peer.credentials!r} of CREDENTIALS at this node, and the user at the peer."
    if status == 403:
        return f"{error} Give the user of this node the permissions sdata_sync.read_feeds and push_feeds at the peer."
    return str(error)
