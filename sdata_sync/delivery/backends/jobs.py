"""What the workers of a task queue do. Each job may be done twice, late or not at all without harm.

================  =====================================================================================
``deliver``       brings a peer level in some kinds, or in all; has itself done again after a failure
``heartbeat``     has every peer compared and delivered to: what was lost on the way is found by it
``compare``       the heartbeat of one peer
``catch_up``      pulls and pushes everything, for every peer or one
``carry_out``     carries an asynchronous ``$syncSource`` or ``$syncTarget`` out
``scan``          finds what was changed past the signals
``purge``         forgets the tombstones that every peer has
================  =====================================================================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ...exceptions import PeerError
from ...models import Peer
from ...registry import registry
from ...sync import operations
from ...sync.db.clock import now
from ...sync.stamp.scan import scan as scan_kind
from ..catchup import catch_up as run_engine
from ..lease import ensure_stream
from ..progress import Progress
from ..purge import purge_all
from ..session import PeerSession
from .queue import Post, claim, take_claims

if TYPE_CHECKING:
    from ...kind import Kind

#: So long a worker delivers to one peer before it lets others have their turn, and goes on later.
DELIVERY_SECONDS = 240.0
#: So long a worker waits in its place for a kind that is referred to, which another is delivering.
PATIENCE_MILLIS = 100
#: How often it does.
TURNS = 20
#: When another looks again whether that has arrived.
WAITING_SECONDS = 1.0
#: When what failed is tried again, if that was nothing for which there is a back-off.
UNEXPECTED_SECONDS = 1.0

_own = threading.local()


def _session(peer: Peer) -> PeerSession:
    """Return the session of this thread for ``peer``: with connections that are kept from one job to the next."""
    sessions: dict[int, PeerSession] = _own.__dict__.setdefault("sessions", {})
    found = sessions.get(peer.pk)
    if found is None or not found.is_for(peer):
        if found is not None:
            found.close()
        found = sessions[peer.pk] = PeerSession(peer)
    return found


def deliver(peer: int, kinds: Sequence[str] | None = None, *, post: Post) -> None:
    """Bring a peer level in ``kinds``, in all if there are none named.

    What does not arrive is posted again, so that there is one such message for each stream, however many wake-ups
    there were: what failed by whoever failed, for when it is due; what waits behind something that another worker is
    delivering by the first that finds it so.
    """
    found = Peer.objects.filter(pk=peer, enabled=True, immediate=True).first()
    if found is None:
        return
    wanted = [resource for resource in registry if kinds is None or resource.kind in kinds]
    if kinds is not None:  # a heartbeat takes nobody's message out of the queue
        take_claims(peer, kinds)
    session = _session(found)
    session.failed.clear()
    session.allow(DELIVERY_SECONDS)
    _deliver_patiently(session, wanted)
    for kind in sorted(session.failed):
        retry_at = ensure_stream(found, kind).retry_at
        post("deliver", peer, [kind], delay=(retry_at - now()) / 1000 if retry_at > now() else UNEXPECTED_SECONDS)
    if session.is_to_stop:
        post("deliver", peer, kinds)
    else:
        _post_waiting(found, session.held - session.failed, post)


def _post_waiting(peer: Peer, kinds: Collection[str], post: Post) -> None:
    waiting = claim(peer, kinds)
    if not waiting:
        return
    is_posted = False
    try:
        is_posted = post("deliver", peer.pk, waiting, delay=WAITING_SECONDS)
    finally:
        if not is_posted:
            take_claims(peer.pk, waiting)


def _deliver_patiently(session: PeerSession, wanted: Sequence[Kind]) -> None:
    for _ in range(TURNS):
        due = session.deliver(wanted)
        if due is None or session.is_to_stop or due - now() > PATIENCE_MILLIS:
            return
        time.sleep(max(due - now(), 0) / 1000)


def heartbeat(*, post: Post) -> None:
    """Have every enabled peer compared with, and delivered to."""
    for peer in Peer.objects.filter(enabled=True).values_list("pk", flat=True):
        post("compare", peer)


def compare(peer: int, *, post: Post) -> None:
    """Look at a peer's digests, pull what it has more, then deliver what it lacks."""
    found = Peer.objects.filter(pk=peer, enabled=True).first()
    if found is None:
        return
    session = _session(found)
    session.allow(DELIVERY_SECONDS)
    for resource in registry:
        session.compare_and_pull(resource)
    if session.is_to_stop:
        post("compare", peer)
    if found.immediate:
        deliver(peer, post=post)


def catch_up(peer: int | None = None, *, post: Post) -> None:
    """Pull and push everything for one peer; without one, have that done for each."""
    if peer is None:
        for each in Peer.objects.filter(enabled=True).values_list("pk", flat=True):
            post("catch_up", each)
        return
    found = Peer.objects.filter(pk=peer, enabled=True)
    done = list(run_engine(found, registry, directions=("pull", "push"), make_progress=lambda *_: Progress()))
    errors = [f"{passed.kind} {passed.direction}: {passed.error}" for passed in done if passed.error]
    if errors:
        raise PeerError("; ".join(errors))


def carry_out(operation: int, *, post: Post) -> None:
    """Carry an asynchronous call out."""
    operations.carry_out(operation)


def scan(*, post: Post) -> None:
    """Find what was changed past the signals, in all kinds; what is found is delivered like any change."""
    for resource in registry:
        scan_kind(resource)


def purge(*, post: Post) -> None:
    """Forget the tombstones that every enabled peer has."""
    for _ in purge_all():
        pass
