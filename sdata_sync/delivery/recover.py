"""Get back changes that this node lost in a restore, and lower ticks that a false claim has raised (network)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..conf import conf
from ..core.state import same_endpoint
from ..exceptions import FeedError, PeerError, PeerMisbehaved, PeerRefused
from ..models import Peer
from ..sync.log.digests import load_digest, lock_digest
from ..sync.stamp.lower_tick import HIGHEST_USABLE, Lowered, confirm, lower_own_tick
from ..sync.stamp.restore_gap import restore_gap, take_higher_tick
from ..turns import write_transaction
from .client import ABSENT, PeerClient
from .progress import Progress
from .pull import pull, read_full_feed
from .threads.overlap import call_all

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind

logger = logging.getLogger(__name__)

#: The longest silence of a peer in the restore check, with which a process begins.
CHECK_SECONDS = 2.0
#: The beginning of the outcome for a peer from which the lost changes could not be pulled.
NOT_RECOVERED = "not recovered"


def knows_more_of_us(kind: Kind, shown: Digest) -> bool:
    """Return True if ``shown`` has a higher tick for this node than the node itself, or can close a restore gap.

    Not if that tick is so high that this node cannot have assigned it: see ``push.check_own_tick``.
    """
    own, noted = kind.endpoint, restore_gap(kind)
    ours, theirs = load_digest(kind).value.tick(own), shown.tick(own)
    if theirs - ours > conf.max_tick_leap:
        return False
    return theirs > ours or (noted is not None and theirs >= noted.until)


def recover(
    client: PeerClient,
    peer: Peer,
    kind: Kind,
    shown: Digest,
    *,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Pull the changes of this node that it lost and the peer has; then continue above the peer's tick (network).

    Marked changes get their ticks when the pull has ended: ticks that no node has seen.

    Raises:
        DeliveryInterrupted: ``is_interrupted`` returned True; the next pull continues after the last page.
        PeerError: the peer cannot be reached, is busy, or its answer cannot be read.
    """
    logger.warning(
        "%s: %s has a higher tick of this node than the node itself; lost changes are pulled", kind.name, peer
    )
    try:
        pull(client, peer, kind, Progress(), is_interrupted=is_interrupted)
    except PeerRefused as refusal:
        if refusal.status not in (*ABSENT, 401, 403):
            raise  # a temporary failure: a later pull may succeed
        # The peer does not give its changes to this node, but the ticks that it has seen must not be used again.
        logger.warning("%s: the changes that this node lost cannot be pulled: %s", kind.name, refusal)
        with write_transaction(kind.database):
            stored = lock_digest(kind)
            try:
                take_higher_tick(kind, stored, shown, f"the peer {peer}")
            except FeedError as error:
                raise PeerMisbehaved(str(error)) from error


def check_peers(kind: Kind) -> bool:
    """Run the restore check with every enabled peer (network).

    Return False while a peer has changes that this node lost and they could not be pulled: no tick may be assigned.
    """
    return not any(outcome.startswith(NOT_RECOVERED) for outcome in ask_peers(kind).values())


def ask_peers(kind: Kind) -> dict[str, str]:
    """Read every enabled peer's digest of a kind (network), and pull lost changes from peers with a higher tick.

    Return the outcome for each peer by name: "knows no more", "recovered", or why the peer could not be asked.
    """
    peers = list(Peer.objects.filter(enabled=True))
    if not peers:
        return {}
    # All at the same time: the timeouts of unreachable peers do not add up.
    shown = call_all(lambda peer: _shown(peer, kind.name), peers)
    outcomes: dict[str, str] = {}
    for peer, digest in sorted(zip(peers, shown, strict=True), key=lambda item: _tick(item[1], kind), reverse=True):
        if isinstance(digest, str):
            outcomes[peer.name] = digest
        elif knows_more_of_us(kind, digest):
            outcomes[peer.name] = _recover(peer, kind, digest)
        else:
            outcomes[peer.name] = "knows no more"
    return outcomes


def _tick(shown: Digest | str, kind: Kind) -> int:
    return -1 if isinstance(shown, str) else shown.tick(kind.endpoint)


def _shown(peer: Peer, kind: str) -> Digest | str:
    try:
        with PeerClient.for_peer(peer, timeout=CHECK_SECONDS, total=2 * CHECK_SECONDS) as client:
            return client.read_digest(kind)
    except PeerError as error:
        return f"not asked: {error}"


def _recover(peer: Peer, kind: Kind, shown: Digest) -> str:
    try:
        with PeerClient.for_peer(peer) as client:
            recover(client, peer, kind, shown)
    except PeerError as error:
        logger.warning(
            "%s: the changes that were lost in a restore could not be pulled from %s: %s", kind.name, peer, error
        )
        return f"{NOT_RECOVERED}: {error}"
    return "recovered"


def lower_above_peers(kind: Kind) -> tuple[Lowered, dict[str, str]]:
    """Lower this node's tick to just above its versions, here and at the peers that answer (network).

    Return the ticks, and the outcome for each enabled peer by name: "asked", or why it could not be asked.
    """
    highest, outcomes = 0, dict[str, str]()
    for peer in Peer.objects.filter(enabled=True):
        try:
            highest = max(highest, _highest_at(peer, kind))
            outcomes[peer.name] = "asked"
        except PeerError as error:
            outcomes[peer.name] = f"not asked: {error}"
    return lower_own_tick(kind, highest), outcomes


def _highest_at(peer: Peer, kind: Kind) -> int:
    with PeerClient.for_peer(peer) as client:
        ticks = (
            entry.state.tick
            for entries in read_full_feed(client, peer, kind)
            for entry in entries
            if same_endpoint(entry.state.endpoint, kind.endpoint) and entry.state.tick <= HIGHEST_USABLE
        )
        return max(ticks, default=0)


def confirm_with(peer: Peer, kind: Kind) -> Lowered:
    """Lower this node's digest entry for the endpoint of ``peer`` to the tick in the peer's own digest (network).

    Raises:
        PeerError: the peer does not answer, or there are no credentials of the name that the peer has.
    """
    with PeerClient.for_peer(peer) as client:
        return confirm(kind, peer.endpoint(kind.name), client.read_digest(kind.name))
