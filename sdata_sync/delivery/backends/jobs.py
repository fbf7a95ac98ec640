"""The jobs that the workers of a task queue run. A job that runs twice, late or never does no harm.

================  =====================================================================================
``deliver``       push some kinds, or all, to a peer; post the job again after a failure
``heartbeat``     post ``compare`` for every peer, so that lost wake-ups do no harm
``compare``       compare digests with one peer, pull what this node lacks, then deliver
``catch_up``      pull and push all changes, for every peer or one
``carry_out``     run an asynchronous ``$syncSource`` or ``$syncTarget`` call
``scan``          find changes that no signal reported
``purge``         remove tombstones that every peer has
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
from ..lease import ensure_stream, is_backing_off
from ..progress import Progress
from ..purge_all import purge_all
from ..session import PeerSession
from .queue import Post, claim, take_claims

if TYPE_CHECKING:
    from ...kind import Kind

#: The longest time that one job delivers to one peer; then the job is posted again, behind the jobs of other peers.
DELIVERY_SECONDS = 240.0
#: The longest pause for which a job waits inside the worker while another process delivers a referenced kind, and the
#: greatest number of such pauses.
PATIENCE_MILLIS = 100
TURNS = 20
#: The delay of the job that is posted when the referenced kind has not arrived until then.
WAITING_SECONDS = 1.0
#: The delay of the job that is posted after an unexpected exception, for which the stream has no back-off.
UNEXPECTED_SECONDS = 1.0
#: The names of the jobs.
NAMES = ("deliver", "heartbeat", "compare", "catch_up", "carry_out", "scan", "purge")

_own = threading.local()


def _session(peer: Peer) -> PeerSession:
    """Return this thread's session with ``peer``, whose connections stay open from one job to the next."""
    sessions: dict[int, PeerSession] = _own.__dict__.setdefault("sessions", {})
    found = sessions.get(peer.pk)
    if found is None or not found.is_for(peer):
        if found is not None:
            found.close()
        found = sessions[peer.pk] = PeerSession(peer)
    return found


def deliver(peer: int, kinds: Sequence[str] | None = None, *, post: Post) -> None:
    """Push ``kinds``, by default all, to a peer.

    A kind that did not arrive is posted again, so that there is one message for each stream, however many wake-ups
    there were. After a failure the job that failed posts it, with the delay of the back-off. While another worker
    delivers a referenced kind, the first job that finds this posts it.
    """
    found = Peer.objects.filter(pk=peer, enabled=True, immediate=True).first()
    if found is None:
        return
    wanted = [kind for kind in registry if kinds is None or kind.name in kinds]
    if kinds is not None:  # a heartbeat leaves the messages of the wake-ups in the queue
        take_claims(peer, kinds)
    session = _session(found)
    session.failed.clear()
    session.allow(DELIVERY_SECONDS)
    _deliver_patiently(session, wanted)
    for kind_name in sorted(session.failed):
        stream = ensure_stream(found, kind_name)
        delay = (stream.retry_at - now()) / 1000 if is_backing_off(stream) else UNEXPECTED_SECONDS
        post("deliver", peer, [kind_name], delay=delay)
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
    """Post ``compare`` for every enabled peer."""
    for peer in Peer.objects.filter(enabled=True).values_list("pk", flat=True):
        post("compare", peer)


def compare(peer: int, *, post: Post) -> None:
    """Compare digests with a peer, and pull the changes that this node lacks.

    Then push the changes that the peer lacks, if the peer has immediate delivery.
    """
    found = Peer.objects.filter(pk=peer, enabled=True).first()
    if found is None:
        return
    session = _session(found)
    session.allow(DELIVERY_SECONDS)
    for kind in registry:
        session.compare_and_pull(kind)
    if session.is_to_stop:
        post("compare", peer)
    if found.immediate:
        deliver(peer, post=post)


def catch_up(peer: int | None = None, *, post: Post) -> None:
    """Pull and push all changes of one peer; without ``peer``, post the job for every enabled peer.

    Raises:
        PeerError: a direction of a kind has failed; the text names each.
    """
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
    """Run the asynchronous call whose ``Operation`` has the primary key ``operation``."""
    operations.carry_out(operation)


def scan(*, post: Post) -> None:
    """Find changes of all kinds that no signal reported; they are delivered like any change."""
    for kind in registry:
        scan_kind(kind)


def purge(*, post: Post) -> None:
    """Remove the tombstones that every enabled peer has."""
    for _ in purge_all():
        pass
