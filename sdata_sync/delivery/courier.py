"""Bringing one peer level: immediate when contiguous, catch-up when not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError

from ..atom.feed import SyncMode
from ..atom.renderer import Paging, render_feed
from ..conf import conf
from ..core.digest import Digest
from ..core.order import TickOrder
from ..core.selection import missing_ranges
from ..core.state import SyncState, same_endpoint
from ..exceptions import FeedRefused, PeerError, PeerMisbehaved, PeerRefused
from ..models import Peer, Stream
from ..registry import registry
from ..resources import SyncResource
from ..sync.clock import now
from ..sync.deferring import settle_waiting
from ..sync.digests import StoredDigest, load_digest
from ..sync.existing import track_existing
from ..sync.hearing import wait_to_number
from ..sync.numbering import number_changes
from ..sync.pages import Page, is_own, read_page
from ..sync.parts import refuse_part
from ..sync.runs import new_run
from ..sync.scopes import is_filtered, owes, review, scope_for
from ..sync.sources import count_missing
from .abreast import meanwhile
from .client import Answer, PeerClient
from .pulling import pull
from .recovery import knows_more_of_us, recover
from .streams import Lease, claim_comparison, find_stream, forget_known_digest, known_digest, note_failure
from .watch import Watch

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: When to look again at a stream that somebody else holds.
HELD_MILLIS = 2000
#: When to look again at a kind that refers to one of another holder's.
TURN_MILLIS = 20
#: When to look again after something that nobody thought of.
UNEXPECTED_MILLIS = 1000


class Courier:
    """Delivers to one peer, from one thread, on connections that it keeps."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._client: PeerClient | None = None
        self._known: dict[str, Digest] = {}
        #: The kinds that somebody else was found delivering.
        self._held: set[str] = set()

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

    def deliver(self, resources: Iterable[SyncResource], *, impatient: bool = False) -> int | None:
        """Bring the peer level in ``resources``, in their order, and return when to try again.

        In milliseconds since 1970; ``None`` if everything arrived. ``impatient`` does not wait for the end of a
        back-off. What goes wrong with one kind is noted on its stream and does not keep the others.
        """
        self._held.clear()
        due = [self._deliver_in_turn(resource, impatient=impatient) for resource in resources]
        return min((moment for moment in due if moment is not None), default=None)

    def _deliver_in_turn(self, resource: SyncResource, *, impatient: bool) -> int | None:
        """Let what is referred to arrive first, if somebody else is delivering it this very moment."""
        if self._held and self._held & registry.kinds_referred_to(resource):
            self._held.add(resource.kind)
            return now() + TURN_MILLIS
        return self._deliver_safely(resource, impatient=impatient)

    def _deliver_safely(self, resource: SyncResource, *, impatient: bool) -> int | None:
        try:
            return self._deliver_kind(resource, impatient=impatient)
        except InterfaceError:
            raise  # the connection to our own database is gone, for every kind
        except Exception:
            logger.exception("%s could not be delivered to %s; it is tried again", resource.kind, self.peer)
            return now() + UNEXPECTED_MILLIS

    def _deliver_kind(self, resource: SyncResource, *, impatient: bool) -> int | None:
        if not resource.is_source:
            return None
        while True:
            stored = number_changes(resource)
            if self._is_level(resource, stored):
                return None
            stream = find_stream(self.peer, resource.kind)
            if stream.retry_at > now() and not impatient:
                return stream.retry_at
            lease = Lease.take(stream)
            if lease is None:
                self._held.add(resource.kind)
                return now() + HELD_MILLIS  # word is left; this is for a holder that dies
            look_again, due = self._pass(resource, stored, lease)
            if not look_again:
                return due

    def _is_level(self, resource: SyncResource, stored: StoredDigest) -> bool:
        """Tell whether the peer is known to have everything, from what was seen here last, else from the stream."""
        known = self._known.get(resource.kind)
        if known is None:
            stream = find_stream(self.peer, resource.kind)
            known = None if stream.failures else known_digest(stream)
        return known is not None and not self.lags(resource, stored, known)

    def _pass(self, resource: SyncResource, stored: StoredDigest, lease: Lease) -> tuple[bool, int | None]:
        """Bring the peer level under ``lease``; return whether to look once more, and when to try again."""
        passage = _Passage(self, resource, lease)
        error: Exception | None = None
        try:
            passage.bring_level_in_pages_that_fit(stored)
        except PeerError as raised:
            error = raised
            logger.warning("%s is not level: %s", lease.stream, raised)
        except Exception as raised:
            error = raised
            raise
        finally:
            look_again = lease.give_back(passage.known, error)
            self._known.pop(resource.kind, None)
        if error is not None:
            lease.stream.refresh_from_db(fields=["retry_at"])
            return False, lease.stream.retry_at
        if passage.known is not None:
            self._known[resource.kind] = passage.known
        return look_again, None

    def catch_up(self, resource: SyncResource, watch: Watch) -> None:
        """Push all of ``resource`` that the peer lacks, whoever made it; ``watch`` sees the pages go.

        Raises:
            PeerError
        """
        if not wait_to_number(resource):
            raise PeerError("A peer knows more of this node than it does itself; it must be heard first.")
        track_existing(resource)
        stored = number_changes(resource)
        lease = self._wait_for_lease(find_stream(self.peer, resource.kind))
        passage = _Passage(self, resource, lease, watch=watch)
        passage.known = None
        error: Exception | None = None
        try:
            passage.bring_level_in_pages_that_fit(stored)
        except Exception as raised:
            error = raised
            raise
        finally:
            lease.give_back(passage.known, error)
            self._known.pop(resource.kind, None)

    def compare(self, resource: SyncResource) -> None:
        """Look at the peer's digest, if nobody has for a while: pull what it has more, forget what was assumed.

        A stall that no save would end is noticed here. What goes wrong is noted on the stream.
        """
        stream = find_stream(self.peer, resource.kind)
        pause = int(conf.heartbeat * 1000)
        if not pause or max(stream.retry_at, stream.compared_at + pause) > now():
            return
        if not claim_comparison(stream, pause):
            return  # another process was quicker
        try:
            shown = self.client().read_digest(resource.kind)
            self.refuse_ourselves(resource, shown)
            if not resource.is_target:
                pass
            elif knows_more_of_us(resource, shown):
                recover(self.client(), self.peer, resource, shown)
            elif not load_digest(resource).value.covers(shown):
                pull(self.client(), self.peer, resource, Watch())
            settle_waiting(resource)
            review(resource, self.peer, shown)
        except PeerError as error:
            logger.warning("%s could not be compared: %s", stream, error)
            note_failure(stream, error)
            return
        known = known_digest(stream)
        if known is not None and not shown.covers(known):
            # It has less than it was thought to have: it was restored itself.
            forget_known_digest(stream)
            self._known.pop(resource.kind, None)

    def _wait_for_lease(self, stream: Stream) -> Lease:
        deadline = time.monotonic() + conf.lease_seconds
        while (lease := Lease.take(stream)) is None:
            if time.monotonic() > deadline:
                raise PeerError(f"{stream} has been held by another process for {conf.lease_seconds} s.")
            time.sleep(0.05)
        return lease

    def wanted(self, resource: SyncResource) -> Callable[[str], bool]:
        """Return which endpoints' changes are pushed at once: our own, or with relay all but the peer's."""
        if not self.peer.relay:
            return is_own(resource)
        theirs = self.peer.endpoint(resource.kind)
        return lambda endpoint: not same_endpoint(endpoint, theirs)

    def lags(self, resource: SyncResource, stored: StoredDigest, known: Digest) -> bool:
        """Tell whether a peer with the digest ``known`` lacks something that is to be pushed at once."""
        wanted = self.wanted(resource)
        return owes(resource, self.peer) or any(
            wanted(missing.endpoint) for missing in missing_ranges(stored.value, known)
        )

    def refuse_ourselves(self, resource: SyncResource, shown: Digest) -> None:
        """Refuse a peer that has our own name, or one with which a part of the kind must not be exchanged.

        Raises:
            PeerMisbehaved
        """
        if shown.origin and same_endpoint(shown.origin, resource.endpoint):
            raise PeerMisbehaved(
                f"The peer calls itself {shown.origin}, and so are we called; two nodes must not have one BASE_URL."
            )
        try:
            refuse_part(resource, load_digest(resource).value, shown)
        except FeedRefused as error:
            raise PeerMisbehaved(str(error)) from error

    def refuse_part(self, resource: SyncResource, stored: StoredDigest) -> None:
        """Refuse to give a part of a kind to anybody but the node that chose it.

        Raises:
            PeerError
        """
        chosen_by = stored.value.part_of
        if chosen_by and not same_endpoint(chosen_by, self.peer.endpoint(resource.kind)):
            raise PeerError(
                f"This node has only a part of the {resource.kind}, which {chosen_by} chooses; they are exchanged with "
                f"that node and with no other. Take them out of what {self.peer} gets, or let it have all of them."
            )

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


class _Passage:
    """One stream brought level, under a lease. ``known`` is the peer's digest as far as it is known."""

    def __init__(self, courier: Courier, resource: SyncResource, lease: Lease, *, watch: Watch | None = None) -> None:
        self._watch = watch
        self._courier = courier
        self._resource = resource
        self._lease = lease
        self._run = new_run(conf.base_url, courier.peer.url)
        self._limit = conf.page_size
        self._catch_up_limit = conf.catch_up_page_size
        self.known = known_digest(lease.stream)

    def bring_level(self, stored: StoredDigest) -> None:
        """Deliver until the peer lacks nothing of what ``stored``, or a later digest of ours, contains.

        Raises:
            PeerError
        """
        resource, courier = self._resource, self._courier
        courier.refuse_part(resource, stored)
        while True:
            if self.known is None:
                stored = self._catch_up()
            assert self.known is not None
            if not courier.lags(resource, stored, self.known):
                return
            if not self._push(stored):
                self.known = None

    def bring_level_in_pages_that_fit(self, stored: StoredDigest) -> None:
        """Do the same, with smaller pages for a peer that finds ours too large.

        Raises:
            PeerError
        """
        while True:
            try:
                return self.bring_level(stored)
            except PeerRefused as refusal:
                if refusal.status != 413 or self._limit == self._catch_up_limit == 1:
                    raise
                self._limit = max(self._limit // 4, 1)
                self._catch_up_limit = max(self._catch_up_limit // 4, 1)
                logger.info("%s: pages of %d from here on; %s", self._lease.stream, self._limit, refusal)
                stored = number_changes(self._resource)

    def _push(self, stored: StoredDigest) -> bool:
        """Post immediate feeds while they are contiguous; false if it takes a catch-up to go on."""
        resource, courier = self._resource, self._courier
        wanted = courier.wanted(resource)
        assert self.known is not None
        if is_filtered(resource):
            review(resource, courier.peer, self.known)
            stored = number_changes(resource)
        scope = scope_for(resource, courier.peer)
        page = read_page(resource, stored, self.known, limit=self._limit, wanted=wanted, scope=scope)
        while _is_contiguous(page.states, self.known):
            sent, sent_digest = page, stored

            def read_next(
                cursor: Digest = page.cursor, owed_to: int | None = page.owed_to
            ) -> tuple[StoredDigest, Page]:
                # Every immediate page is of its own moment: it does not end with our digest being taken over.
                numbered = number_changes(resource)
                return numbered, read_page(
                    resource, numbered, cursor, limit=self._limit, wanted=wanted, scope=scope, owed_from=owed_to
                )

            try:
                answer, following = self._exchange(sent, sent_digest, SyncMode.IMMEDIATE, read_next)
            except PeerRefused as refusal:
                if refusal.status != 400:
                    raise
                logger.info("%s: %s; catching up", self._lease.stream, refusal)
                return False
            self._note_progress(answer, sent.states)
            if answer.digest is not None and knows_more_of_us(resource, answer.digest):
                return False  # whatever it has under the ticks just sent may be something else
            if following is None:
                return True
            self._renew()
            stored, page = following
        return not self._courier.lags(resource, stored, self.known)

    def _note_progress(self, answer: Answer, states: Iterable[SyncState]) -> None:
        assert self.known is not None
        if answer.digest is not None:
            self._expect(all(answer.digest.contains(state) for state in states), answer.digest)
            self.known = answer.digest
        else:
            for state in states:
                self.known = self.known.advance(state, stamp=0)

    def _catch_up(self) -> StoredDigest:
        """Push all that the peer lacks, selected against the digest that it has now; return ours of that moment.

        Never against one that is remembered: at the end of the feed the peer takes over our digest, and if it
        was restored from a backup meanwhile, that would hide what it lost.
        """
        resource = self._resource
        track_existing(resource)
        target = self._courier.client().read_digest(resource.kind)
        self._courier.refuse_ourselves(resource, target)
        if knows_more_of_us(resource, target):
            recover(self._courier.client(), self._courier.peer, resource, target)
        review(resource, self._courier.peer, target)
        stored = number_changes(resource)
        scope = scope_for(resource, self._courier.peer)
        # One that was let in learns from the next feed that it has the whole, be it empty.
        is_let_in = scope is None and bool(target.part_of) and same_endpoint(target.part_of, resource.endpoint)
        if not (missing_ranges(stored.value, target) or owes(resource, self._courier.peer) or is_let_in):
            self.known = target
            return stored
        if self._watch is not None:
            self._watch.begin(count_missing(resource, stored, target, scope))
        page = read_page(resource, stored, target, limit=self._catch_up_limit, scope=scope)
        while True:

            def read_next(cursor: Digest = page.cursor, owed_to: int | None = page.owed_to) -> Page:
                return read_page(resource, stored, cursor, limit=self._catch_up_limit, scope=scope, owed_from=owed_to)

            answer, following = self._exchange(page, stored, SyncMode.CATCH_UP, read_next)
            if following is None:
                break
            page = following
            self._renew()
        after = answer.digest or target.merge(stored.value, stamp=0)
        self._expect(after.covers(stored.value), after)
        self.known = after
        return stored

    def _exchange(
        self, page: Page, stored: StoredDigest, mode: SyncMode, read_next: Callable[[], T]
    ) -> tuple[Answer, T | None]:
        """Post ``page`` and, if it is not the last, read the next one while the peer applies it."""
        if page.is_last:
            return self._post(page, stored, mode), None
        return meanwhile(lambda: self._post(page, stored, mode), read_next)

    def _expect(self, moved_on: bool, digest: Digest) -> None:
        if not moved_on:
            raise PeerMisbehaved(f"The peer answered 200, but its digest did not move on: {digest}")

    def _post(self, page: Page, stored: StoredDigest, mode: SyncMode) -> Answer:
        resource = self._resource
        url = f"{resource.endpoint}/$syncSource"
        is_end = page.is_last or mode is SyncMode.IMMEDIATE
        is_part = scope_for(resource, self._courier.peer) is not None
        feed = render_feed(
            page.entries,
            url=url,
            title=f"{resource.kind} of {conf.base_url}",
            digest=stored.value.as_part_of(resource.endpoint) if is_part else stored.value,
            now=now(),
            sync_mode=mode,
            paging=Paging(next_url="" if is_end else f"{url}?startIndex={len(page.states) + 1}"),
        )
        answer = self._courier.client().post_page(
            resource.kind,
            feed,
            run=self._run,
            # They are for the log, and for whoever watches; the peer keeps them.
            with_results=self._watch is not None or logger.isEnabledFor(logging.INFO),
        )
        if page.owed and (scope := scope_for(resource, self._courier.peer)) is not None:
            scope.settle(page.owed)
        if self._watch is not None:
            self._watch.see(len(page.states), [result.status for result in answer.exceptions])
        for result in answer.exceptions:
            said = "; ".join(diagnosis.message for diagnosis in result.diagnoses)
            logger.info("%s: %s %s %s %s", self._lease.stream, result.uuid, result.status, result.message, said)
        return answer

    def _renew(self) -> None:
        if not self._lease.renew(self.known):
            raise PeerError("The stream was taken over by another process; it goes on from here.")


def _is_contiguous(states: Iterable[SyncState], known: Digest) -> bool:
    states = list(states)
    order = TickOrder(known, contiguous=True)
    return bool(states) and all(order.check(state) is None for state in states)
