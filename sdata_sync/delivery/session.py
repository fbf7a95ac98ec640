"""Bringing one peer level: immediate when contiguous, catch-up when not."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..exceptions import DeliveryInterrupted, PeerError
from ..registry import registry
from ..sync.content.deferred import settle_waiting
from ..sync.db.clock import now
from ..sync.db.faults import is_lost_connection
from ..sync.log.digests import StoredDigest, load_digest
from ..sync.scope import is_let_in, review
from ..sync.select.oversize import PeerLimit
from ..sync.stamp.restore import PATIENCE_SECONDS, wait_to_number
from ..sync.stamp.scan import track_existing
from ..sync.stamp.stamper import number_changes
from ..tracing import span
from .client import PeerClient
from .lease import (
    Lease,
    claim_comparison,
    find_stream,
    forget_known_digest,
    known_digest,
    note_failure,
    release_comparison,
)
from .pull import pull_in_turn, read_digest_for_deletions
from .push import Passage, lags, refuse_ourselves
from .restore import knows_more_of_us, recover

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind
    from ..models import Peer, Stream
    from .progress import Watch

logger = logging.getLogger(__name__)

#: When to look again at a stream that somebody else holds.
HELD_MILLIS = 2000
#: When to look again at a kind that refers to one of another holder's, and by what that grows while it is in vain.
TURN_MILLIS, GROWTH, MAX_TURN_MILLIS = 20, 1.5, 250
#: When to look again after something that nobody thought of.
UNEXPECTED_MILLIS = 1000


class Courier:
    """Delivers to one peer, from one thread, on connections that it keeps."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._client: PeerClient | None = None
        self._known: dict[str, Digest] = {}
        #: The kinds that somebody else was found delivering, and those that wait behind one of them.
        self.held: set[str] = set()
        self._turn_millis: float = TURN_MILLIS
        #: Those that could not be delivered in this very call, and are not tried again for the sake of others.
        self._given_up: set[str] = set()
        #: The kinds that could not be delivered when that was last tried here.
        self.failed: set[str] = set()
        self._is_interrupted = False
        self._deadline = math.inf

    def is_for(self, peer: Peer) -> bool:
        """Tell whether ``peer`` is ours, configured as it was when we began."""
        return all(getattr(self.peer, name) == getattr(peer, name) for name in ("pk", "url", "credentials", "relay"))

    @property
    def is_failing(self) -> bool:
        """Whether something could not be delivered when that was last tried here."""
        return bool(self.failed)

    def interrupt(self) -> None:
        """Stop after the page that is under way; called from another thread."""
        self._is_interrupted = True

    def allow(self, seconds: float) -> None:
        """Stop after the page that is under way in ``seconds`` from now."""
        self._deadline = time.monotonic() + seconds

    @property
    def is_to_stop(self) -> bool:
        """Whether the delivery ends with the page that is under way."""
        return self._is_interrupted or time.monotonic() > self._deadline

    def __enter__(self) -> Courier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next delivery opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def deliver(self, resources: Iterable[Kind], *, impatient: bool = False) -> int | None:
        """Bring the peer level in ``resources``, in their order, and return when to try again.

        In milliseconds since 1970; ``None`` if everything arrived. ``impatient`` does not wait for the end of a
        back-off. What goes wrong with one kind is noted on its stream and does not keep the others.
        """
        # Another may be at it for an hour, a first contact for instance: then everybody who waits asks rarely.
        self._turn_millis = min(self._turn_millis * GROWTH, MAX_TURN_MILLIS) if self.held else TURN_MILLIS
        self.held.clear()
        self._given_up.clear()
        due = [self._deliver_in_turn(resource, impatient=impatient) for resource in resources]
        return min((moment for moment in due if moment is not None), default=None)

    def _deliver_in_turn(self, resource: Kind, *, impatient: bool) -> int | None:
        """Deliver ``resource``, unless another process is delivering a kind that it refers to."""
        if self._must_wait(resource):
            return self._next_turn()
        return self._deliver_safely(resource, impatient=impatient)

    def _must_wait(self, resource: Kind) -> bool:
        """Return True, and note it, if another process is delivering a kind that ``resource`` refers to."""
        waits = bool(self.held and self.held & registry.kinds_referred_to(resource))
        if waits:
            self.held.add(resource.kind)
        return waits

    def _next_turn(self) -> int:
        return now() + int(self._turn_millis)

    def _deliver_safely(self, resource: Kind, *, impatient: bool) -> int | None:
        try:
            return self._deliver_kind(resource, impatient=impatient)
        except Exception as error:
            if is_lost_connection(error):
                raise
            facts = {"peer": self.peer.name, "kind": resource.kind}
            logger.exception("%s could not be delivered to %s; it is tried again", *facts.values(), extra=facts)
            self.failed.add(resource.kind)
            self._given_up.add(resource.kind)
            return now() + UNEXPECTED_MILLIS

    def _deliver_kind(self, resource: Kind, *, impatient: bool) -> int | None:
        if not resource.is_source:
            return None
        while not self._is_interrupted:
            # What refers to it is numbered by now and must not get ahead of it, so another that hears is waited for.
            stored = number_changes(resource, patience=PATIENCE_SECONDS)
            if self._is_level(resource, stored):
                self.failed.discard(resource.kind)
                return None
            if not self._send_ahead(resource, impatient=impatient):
                return self._next_turn()
            stream = find_stream(self.peer, resource.kind)
            if stream.retry_at > now() and not impatient:
                return stream.retry_at
            lease = Lease.take(stream)
            if lease is None:
                self.held.add(resource.kind)
                return now() + HELD_MILLIS  # word is left; this is for a holder that dies
            look_again, due = self._pass(resource, stored, lease)
            if not look_again:
                return due
        return now()

    def _send_ahead(self, resource: Kind, *, impatient: bool = False) -> bool:
        """Deliver the kinds that ``resource`` refers to; return False if another process does, or on a stop.

        Called when changes have been numbered: what they refer to was committed before that, or together with them,
        and perhaps after its own kind was last looked at.
        """
        for earlier in registry.ahead_of(resource):
            if earlier.kind not in self._given_up:
                due = self._deliver_in_turn(earlier, impatient=impatient)
                if due is not None and self.is_to_stop:
                    return False
        return not self._must_wait(resource)

    def _number(self, resource: Kind) -> tuple[StoredDigest, bool]:
        """Number what has been committed; return the digest, and whether what that refers to has gone ahead."""
        stored = number_changes(resource)
        return stored, self._send_ahead(resource)

    def _is_level(self, resource: Kind, stored: StoredDigest) -> bool:
        """Tell whether the peer is known to have everything, from what was seen here last, else from the stream."""
        known = self._known.get(resource.kind)
        if known is not None and not lags(self.peer, resource, stored, known):
            return True
        stream = find_stream(self.peer, resource.kind)
        if known is None:
            known = None if stream.failures else known_digest(stream)
        left_out = stream.left_out_endpoints()
        return known is not None and not lags(self.peer, resource, stored, known, left_out=left_out)

    def _pass(self, resource: Kind, stored: StoredDigest, lease: Lease) -> tuple[bool, int | None]:
        """Bring the peer level under ``lease``; return whether to look once more, and when to try again."""
        passage = self._passage(resource, lease, self._number)
        error: Exception | None = None
        is_interrupted = False
        try:
            with span("deliver", **passage.facts):
                passage.bring_level_in_pages_that_fit(stored)
        except DeliveryInterrupted as raised:
            is_interrupted = True
            logger.info("%s: %s", lease.stream, raised, extra=passage.facts)
        except PeerError as raised:
            error = raised
            logger.warning("%s is not level: %s", lease.stream, raised, extra=passage.facts)
        except Exception as raised:
            error = raised
            raise
        finally:
            look_again = lease.give_back(passage.known, error, delivered=passage.delivered)
            self._known.pop(resource.kind, None)
        if error is not None:
            self.failed.add(resource.kind)
            self._given_up.add(resource.kind)
            lease.stream.refresh_from_db(fields=["retry_at"])
            return False, lease.stream.retry_at
        self.failed.discard(resource.kind)
        if is_interrupted:
            return False, self._next_turn()
        if passage.known is not None:
            self._known[resource.kind] = passage.known
        return look_again, None

    def _passage(
        self,
        resource: Kind,
        lease: Lease,
        number: Callable[[Kind], tuple[StoredDigest, bool]],
        watch: Watch | None = None,
    ) -> Passage:
        return Passage(
            resource,
            lease,
            number=lambda: number(resource),
            client=self.client,
            is_interrupted=lambda: self._is_interrupted,
            is_time_up=lambda: self.is_to_stop,
            watch=watch,
        )

    def catch_up(self, resource: Kind, watch: Watch) -> None:
        """Push every change of ``resource`` that the peer lacks, of any endpoint; ``watch`` counts the pages.

        Raises:
            PeerError: the peer cannot be reached, refuses the request, or answers what cannot be read.
        """
        if not wait_to_number(resource):
            raise PeerError("A peer knows more of this node than it does itself; it must be heard first.")
        track_existing(resource)
        stored = number_changes(resource)
        lease = self._wait_for_lease(find_stream(self.peer, resource.kind))
        passage = self._passage(resource, lease, lambda kind: (number_changes(kind), True), watch)
        passage.known = None
        error: Exception | None = None
        try:
            passage.try_held_again(at_once=True)
            stored = number_changes(resource)
            passage.bring_level_in_pages_that_fit(stored)
        except Exception as raised:
            error = raised
            raise
        finally:
            lease.give_back(passage.known, error, delivered=passage.delivered)
            self._known.pop(resource.kind, None)

    def compare(self, resource: Kind) -> None:
        """Compare digests with the peer, at most once per heartbeat of all processes; pull what is missing here.

        A stall that no save would end is noticed here. What goes wrong is noted on the stream.
        """
        stream = find_stream(self.peer, resource.kind)
        pause = int(conf.heartbeat_seconds * 1000)
        if self.is_to_stop or not pause or max(stream.retry_at, stream.compared_at + pause) > now():
            return
        if not claim_comparison(stream, pause):
            return  # another process was quicker
        try:
            shown = self._hear(resource)
        except DeliveryInterrupted as raised:
            logger.info("%s: %s", stream, raised)
            release_comparison(stream)
            return
        except Exception as error:
            if is_lost_connection(error):
                raise
            facts = {"peer": self.peer.name, "kind": resource.kind}
            is_ours = not isinstance(error, PeerError)  # nobody thought of it
            level = logging.ERROR if is_ours else logging.WARNING
            logger.log(level, "%s could not be compared: %s", stream, error, extra=facts, exc_info=is_ours)
            note_failure(stream, error)
            return
        self._try_held_again(resource)
        known = known_digest(stream)
        # It has less than it was thought to have, for it was restored itself; or must be told that it has the whole.
        if known is not None and (not shown.covers(known) or is_let_in(resource, self.peer, shown)):
            forget_known_digest(stream)
            self._known.pop(resource.kind, None)

    def _hear(self, resource: Kind) -> Digest:
        """Pull what the peer has more, and return its digest as it was before."""
        shown = read_digest_for_deletions(self.client(), self.peer, resource)
        refuse_ourselves(resource, shown)
        if not resource.is_target:
            pass
        elif knows_more_of_us(resource, shown):
            recover(self.client(), self.peer, resource, shown, is_interrupted=lambda: self.is_to_stop)
        elif not load_digest(resource).value.covers(shown):
            ahead = registry.ahead_of(resource)
            pull_in_turn(self.client(), self.peer, resource, ahead, lambda: self.is_to_stop)
        settle_waiting(resource)
        review(resource, self.peer, shown)
        return shown

    def _try_held_again(self, resource: Kind) -> None:
        """Send the versions that were too large for the peer once more, if it is time and no other process delivers."""
        if not PeerLimit(resource, self.peer).due(at_once=False):
            return
        lease = Lease.take(find_stream(self.peer, resource.kind))
        if lease is None:
            return
        passage = self._passage(resource, lease, self._number)
        error: Exception | None = None
        try:
            passage.try_held_again(at_once=False)
        except PeerError as raised:
            error = raised
        finally:
            lease.give_back(passage.known, error)

    def _wait_for_lease(self, stream: Stream) -> Lease:
        deadline = time.monotonic() + conf.lease_seconds
        while (lease := Lease.take(stream)) is None:
            if time.monotonic() > deadline:
                raise PeerError(f"{stream} has been held by another process for {conf.lease_seconds} s.")
            time.sleep(0.05)
        return lease

    def client(self) -> PeerClient:
        """Return the client, logged in as the peer's credentials say.

        Raises:
            PeerError: there are no such credentials.
        """
        if self._client is None:
            try:
                self._client = PeerClient(self.peer.url, conf.credentials(self.peer.credentials))
            except (ImproperlyConfigured, TypeError) as error:
                raise PeerError(str(error)) from error
        return self._client
