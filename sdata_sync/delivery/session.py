"""Deliver to one peer: kind by kind, each under the lease of its stream."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from ..conf import conf
from ..exceptions import DeliveryInterrupted, PeerError
from ..registry import registry
from ..sync.content.deferred import retry_waiting
from ..sync.db.clock import lies_ahead, now
from ..sync.db.faults import is_lost_connection
from ..sync.log.digests import StoredDigest, load_digest
from ..sync.scope import is_to_become_full, review
from ..sync.select.oversize import PeerLimit
from ..sync.stamp.restore_gap import PATIENCE_SECONDS, wait_until_checked
from ..sync.stamp.scan import track_existing
from ..sync.stamp.stamper import assign_ticks, check_and_assign_ticks
from ..tracing import span
from .client import PeerClient
from .lease import (
    Lease,
    claim_comparison,
    ensure_stream,
    forget_known_digest,
    is_absent,
    is_backing_off,
    known_digest,
    read_stream,
    release_comparison,
    store_failure,
    store_shared,
)
from .pull import pull_in_turn, read_digest_for_deletions
from .push import Push, check_peer_digest, lacks_changes
from .recover import knows_more_of_us, recover

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind
    from ..models import Peer, Stream
    from .progress import Progress

logger = logging.getLogger(__name__)

#: The pause before the next try to take the lease of a stream that another process holds.
LEASE_MILLIS = 2000
#: The pause before the next look at a kind that refers to a kind which another process is delivering, the factor by
#: which the pause grows while that goes on, and the longest pause.
TURN_MILLIS, GROWTH, MAX_TURN_MILLIS = 20, 1.5, 250
#: How long errands may take after a delivery, before it is looked for changes again.
ERRAND_SECONDS = 2.0
#: The pause after an unexpected exception.
UNEXPECTED_MILLIS = 1000


@dataclass(frozen=True)
class Errand:
    """Work of another app that is done while a peer is visited.

    ``run`` does the work (network) until a given time (monotonic seconds), and returns what it has not done, as a text:
    an empty one if it did everything. ``concerns`` returns True for the name of a kind whose received changes make
    work. ``left`` returns, for the name of a kind, what is not done yet by the database of this node, as a text.
    """

    name: str
    run: Callable[[PeerSession, float], str]
    concerns: Callable[[str], bool]
    left: Callable[[str], str]


_errands: list[Errand] = []


def add_errand(errand: Errand) -> None:
    """Do ``errand`` at the end of each delivery to a peer, and of each catch-up with one."""
    if errand.name not in {known.name for known in _errands}:
        _errands.append(errand)


def has_errands(kind: str) -> bool:
    """Return True if the peers are to be visited after a change of ``kind`` was received, although none needs it."""
    return any(errand.concerns(kind) for errand in _errands)


def undone_errands(kind: str) -> str:
    """Return what the errands have not done yet for ``kind`` (no network); empty if nothing is left."""
    return "; ".join(text for errand in _errands if errand.concerns(kind) and (text := errand.left(kind)))


class PeerSession:
    """Delivers to one peer, from one thread, on connections that stay open until ``close``.

    Attributes:
        known: the last known digest of the peer, by kind.
        held: the kinds that another process was delivering, and the kinds that refer to one of them.
        failed: the kinds whose last delivery in this session has failed.
        is_interrupted: True after ``interrupt``.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.known: dict[str, Digest] = {}
        self.held: set[str] = set()
        self.failed: set[str] = set()
        self.is_interrupted = False
        self._client: PeerClient | None = None
        self._turn_millis: float = TURN_MILLIS
        #: The kinds that have failed during the present ``deliver``: a kind that refers to one does not try it again.
        self._given_up: set[str] = set()
        self._deadline = math.inf

    def is_for(self, peer: Peer) -> bool:
        """Return True if ``peer`` is the peer of this session and its configuration has not changed since."""
        return all(getattr(self.peer, name) == getattr(peer, name) for name in ("pk", "url", "credentials", "relay"))

    @property
    def is_failing(self) -> bool:
        """Whether the last delivery of a kind has failed."""
        return bool(self.failed)

    def interrupt(self) -> None:
        """Stop after the page that is being posted; called from another thread."""
        self.is_interrupted = True

    def allow(self, seconds: float) -> None:
        """Stop after the page that is being posted in ``seconds`` from now."""
        self._deadline = time.monotonic() + seconds

    @property
    def is_to_stop(self) -> bool:
        """Whether the delivery ends after the page that is being posted."""
        return self.is_interrupted or time.monotonic() > self._deadline

    def __enter__(self) -> PeerSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def client(self) -> PeerClient:
        """Return the client of this session, which is logged in with the credentials of the peer.

        Raises:
            PeerError: the peer is disabled; or ``CREDENTIALS`` has no entry that the peer names, or it is wrong.
        """
        if not self.peer.enabled:
            raise PeerError(f"{self.peer} is disabled: nothing is exchanged with it. Enable it first.")
        if self._client is None:
            self._client = PeerClient.for_peer(self.peer)
        return self._client

    def set_known(self, kind: str, digest: Digest | None) -> None:
        """Set the known digest of the peer; ``None`` if the peer must be asked."""
        if digest is None:
            self.known.pop(kind, None)
        else:
            self.known[kind] = digest

    def deliver(self, resources: Iterable[Kind], *, impatient: bool = False) -> int | None:
        """Push all changes of ``resources`` that the peer lacks, kind by kind in the given order.

        An error with one kind is stored on its stream, and the other kinds go on. ``impatient`` does not wait for the
        end of a back-off.

        Returns:
            When to try again, in milliseconds since 1970; ``None`` if all changes have arrived.
        """
        # Another process may hold a stream for an hour, in a first contact for instance: look less and less often.
        self._turn_millis = min(self._turn_millis * GROWTH, MAX_TURN_MILLIS) if self.held else TURN_MILLIS
        self.held.clear()
        self._given_up.clear()
        due = [self._deliver_in_turn(kind, impatient=impatient) for kind in resources]
        until = time.monotonic() + ERRAND_SECONDS
        if self.run_errands(until=until) and time.monotonic() >= until:
            due.append(now())  # changes that were made meanwhile go first
        return min((moment for moment in due if moment is not None), default=None)

    def run_errands(self, *, until: float = math.inf) -> dict[str, str]:
        """Do the errands (network) until a time (monotonic seconds); return what is not done, by errand."""
        undone: dict[str, str] = {}
        for errand in _errands:
            if self.is_to_stop:
                break
            try:
                undone[errand.name] = errand.run(self, until)
            except PeerError as error:
                undone[errand.name] = str(error)
            except Exception as error:
                if is_lost_connection(error):
                    raise
                logger.exception("The errand %r failed at %s", errand.name, self.peer)
                undone[errand.name] = f"{type(error).__name__}: {error}"
        return {name: said for name, said in undone.items() if said}

    def send_ahead(self, kind: Kind, *, impatient: bool = False) -> bool:
        """Deliver the kinds that ``kind`` refers to; return False if another process does, or on a stop.

        It is called after ticks were assigned. The rows that the changes refer to were committed before, perhaps
        after their own kind was delivered last.
        """
        for earlier in registry.ahead_of(kind):
            if earlier.name not in self._given_up:
                due = self._deliver_in_turn(earlier, impatient=impatient)
                if due is not None and self.is_to_stop:
                    return False
        return not self._must_wait(kind)

    def _deliver_in_turn(self, kind: Kind, *, impatient: bool) -> int | None:
        """Deliver a kind, unless another process is delivering a kind that it refers to."""
        if self._must_wait(kind):
            return self._next_turn()
        return self._deliver_safely(kind, impatient=impatient)

    def _must_wait(self, kind: Kind) -> bool:
        """Return True, and add the kind to ``held``, if another process is delivering a kind that it refers to."""
        waits = bool(self.held and self.held & registry.kinds_referred_to(kind))
        if waits:
            self.held.add(kind.name)
        return waits

    def _next_turn(self) -> int:
        return now() + int(self._turn_millis)

    def _deliver_safely(self, kind: Kind, *, impatient: bool) -> int | None:
        """Deliver a kind; log an unexpected exception, which must not stop the other kinds."""
        try:
            return self._deliver_kind(kind, impatient=impatient)
        except Exception as error:
            if is_lost_connection(error):
                raise
            facts = {"peer": self.peer.name, "kind": kind.name}
            logger.exception("%s could not be delivered to %s; it is tried again", *facts.values(), extra=facts)
            self._give_up(kind)
            return now() + UNEXPECTED_MILLIS

    def _give_up(self, kind: Kind) -> None:
        self.failed.add(kind.name)
        self._given_up.add(kind.name)

    def _deliver_kind(self, kind: Kind, *, impatient: bool) -> int | None:
        if not kind.is_source:
            return None
        while not self.is_interrupted:
            # A kind that refers to this one may have its ticks already and must not be sent first. So the delivery
            # waits while another thread runs the restore check.
            stored = check_and_assign_ticks(kind, patience_seconds=PATIENCE_SECONDS)
            if self._is_in_sync(kind, stored, impatient=impatient):
                self.failed.discard(kind.name)
                return None
            if not self.send_ahead(kind, impatient=impatient):
                return self._next_turn()
            stream = ensure_stream(self.peer, kind.name)
            if is_backing_off(stream) and not impatient:
                return stream.retry_at
            lease = Lease.take(stream)
            if lease is None:
                self.held.add(kind.name)
                return now() + LEASE_MILLIS  # the holder checks again before it releases; it may also have died
            look_again, due = self._push(kind, stored, lease)
            if not look_again:
                return due
        return now()

    def _is_in_sync(self, kind: Kind, stored: StoredDigest, *, impatient: bool) -> bool:
        """Return True if the peer is known to have all changes: by the digest of this session, else by the stream's.

        A kind that the peer does not have is in sync; with ``impatient`` the peer is asked once more.
        """
        known = self.known.get(kind.name)
        if known is not None and not lacks_changes(self.peer, kind, stored, known):
            return True
        stream = read_stream(self.peer, kind.name)
        if stream.is_shared is False and not impatient:
            return True
        if known is None:
            known = None if stream.failures else known_digest(stream)
        left_out = stream.left_out_endpoints()
        return known is not None and not lacks_changes(self.peer, kind, stored, known, left_out=left_out)

    def _push(self, kind: Kind, stored: StoredDigest, lease: Lease) -> tuple[bool, int | None]:
        """Push a kind under ``lease``; return whether to look once more, and when to try again."""
        push = Push(self, kind, lease)
        error: Exception | None = None
        is_interrupted = is_done = False
        try:
            with span("deliver", **push.facts):
                push.push_until_in_sync(stored)
            is_done = True
        except DeliveryInterrupted as raised:
            is_interrupted = True
            logger.info("%s: %s", lease.stream, raised, extra=push.facts)
        except PeerError as raised:
            error = raised
            if not is_absent(lease.stream, raised):
                logger.warning("%s is not in sync: %s", lease.stream, raised, extra=push.facts)
        except Exception as raised:
            error = raised
            raise
        finally:
            look_again = self._release(lease, push, error, is_done=is_done)
        if is_absent(lease.stream, error):
            logger.info("%s is not shared with %s", kind.name, self.peer, extra=push.facts)
            return False, None
        if error is not None:
            self._give_up(kind)
            lease.stream.refresh_from_db(fields=["retry_at"])
            return False, lease.stream.retry_at
        self.failed.discard(kind.name)
        if is_interrupted:
            return False, self._next_turn()
        return look_again, None

    def _release(self, lease: Lease, push: Push, error: Exception | None, *, is_done: bool) -> bool:
        """Release the lease and store the known digest; this session keeps it only if the push is done."""
        try:
            return lease.give_back(push.known, error, delivered=push.delivered)
        finally:
            if not is_done:
                self.known.pop(lease.stream.kind, None)

    def catch_up(self, kind: Kind, progress: Progress) -> None:
        """Push every change of a kind that the peer lacks, of any endpoint; ``progress`` counts the pages.

        Raises:
            PeerError: the peer cannot be reached, refuses the request, or its answer cannot be read.
        """
        if not wait_until_checked(kind):
            raise PeerError(
                "A peer has changes of this node that the node lost in a restore. They must be pulled first; "
                "see sync_rejoin."
            )
        track_existing(kind)
        assign_ticks(kind)
        lease = self._wait_for_lease(ensure_stream(self.peer, kind.name))
        push = Push(self, kind, lease, sends_ahead=False, progress=progress)
        self.set_known(kind.name, None)
        error: Exception | None = None
        try:
            push.retry_oversize(at_once=True)
            push.push_until_in_sync(assign_ticks(kind))
        except Exception as raised:
            error = raised
            raise
        finally:
            self._release(lease, push, error, is_done=False)

    def compare_and_pull(self, kind: Kind) -> None:
        """Compare digests with the peer, at most once per heartbeat of all processes; pull what this node lacks.

        It finds changes that no save would push: of a peer that was restored, or that cannot reach this node. An
        error is stored on the stream.
        """
        stream = ensure_stream(self.peer, kind.name)
        pause = int(conf.heartbeat_seconds * 1000)
        if self.is_to_stop or not pause or is_backing_off(stream) or lies_ahead(stream.compared_at + pause, pause):
            return
        if not claim_comparison(stream, pause):
            return  # another process compares
        try:
            shown = self._pull_missing(kind)
        except DeliveryInterrupted as raised:
            logger.info("%s: %s", stream, raised)
            release_comparison(stream)
            return
        except Exception as error:
            if is_lost_connection(error):
                raise
            if is_absent(stream, error):
                store_shared(stream, is_shared=False)
                return
            facts = {"peer": self.peer.name, "kind": kind.name}
            is_unexpected = not isinstance(error, PeerError)
            level = logging.ERROR if is_unexpected else logging.WARNING
            logger.log(level, "%s could not be compared: %s", stream, error, extra=facts, exc_info=is_unexpected)
            store_failure(stream, error)
            return
        self._retry_oversize(kind)
        known = known_digest(stream)
        # The peer has lost changes in a restore, or must be told that its replica is full.
        if known is not None and (not shown.covers(known) or is_to_become_full(kind, self.peer, shown)):
            forget_known_digest(stream)
            self.known.pop(kind.name, None)

    def _pull_missing(self, kind: Kind) -> Digest:
        """Pull the changes that this node lacks; return the digest that the peer had before."""
        shown = read_digest_for_deletions(self.client(), self.peer, kind)
        check_peer_digest(kind, shown)
        if not kind.is_target:
            pass
        elif knows_more_of_us(kind, shown):
            recover(self.client(), self.peer, kind, shown, is_interrupted=lambda: self.is_to_stop)
        elif not load_digest(kind).value.covers(shown):
            ahead = registry.ahead_of(kind)
            pull_in_turn(self.client(), self.peer, kind, ahead, lambda: self.is_to_stop)
        retry_waiting(kind)
        review(kind, self.peer, shown)
        return shown

    def _retry_oversize(self, kind: Kind) -> None:
        """Post the versions that were too large for the peer once more, if it is time and no other process delivers."""
        if not PeerLimit(kind, self.peer).due(at_once=False):
            return
        lease = Lease.take(ensure_stream(self.peer, kind.name))
        if lease is None:
            return
        push = Push(self, kind, lease)
        error: Exception | None = None
        try:
            push.retry_oversize(at_once=False)
        except PeerError as raised:
            error = raised
        finally:
            self._release(lease, push, error, is_done=False)

    def _wait_for_lease(self, stream: Stream) -> Lease:
        deadline = time.monotonic() + conf.lease_seconds
        while (lease := Lease.take(stream)) is None:
            if time.monotonic() > deadline:
                raise PeerError(f"{stream} has been held by another process for {conf.lease_seconds} s.")
            time.sleep(0.05)
        return lease
