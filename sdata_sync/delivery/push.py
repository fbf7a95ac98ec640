"""Push one kind to one peer: immediate feeds while the ticks are contiguous, a catch-up feed when they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, TypeVar

from ..atom.feed import SyncMode
from ..atom.renderer import Paging, render_feed
from ..conf import conf
from ..core.order import TickOrder
from ..core.selection import missing_ranges
from ..core.state import SyncState, same_endpoint
from ..exceptions import DeliveryInterrupted, FeedRefused, PeerError, PeerMisbehaved, PeerRefused
from ..sync import scope as parts
from ..sync.db.clock import now
from ..sync.log.digests import StoredDigest, load_digest
from ..sync.runs import new_run
from ..sync.scope import Scope, is_let_in, note_given, note_whole, owes, review, scope_for
from ..sync.select.feed import count_missing
from ..sync.select.oversize import PeerLimit
from ..sync.select.pages import Page, is_own, read_page, read_version
from ..sync.stamp.scan import track_existing
from ..tracing import span
from .lease import Lease, known_digest, note_left_out
from .restore import knows_more_of_us, recover
from .threads.overlap import meanwhile

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind
    from ..models import Peer
    from .client import Answer, PeerClient
    from .progress import Watch


def wanted_by(peer: Peer, resource: Kind) -> Callable[[str], bool]:
    """Return which endpoints' changes are pushed to ``peer`` at once: our own, or with relay all but its own."""
    if not peer.relay:
        return is_own(resource)
    theirs = peer.endpoint(resource.kind)
    return lambda endpoint: not same_endpoint(endpoint, theirs)


def lags(peer: Peer, resource: Kind, stored: StoredDigest, known: Digest, *, left_out: Collection[str] = ()) -> bool:
    """Return True if ``peer``, with the digest ``known``, lacks something that is to be pushed at once.

    ``left_out`` are endpoints, in lower case, of which the peer does not believe what our digest says.
    """
    wanted = wanted_by(peer, resource)
    return owes(resource, peer) or any(
        wanted(missing.endpoint) and missing.endpoint.lower() not in left_out
        for missing in missing_ranges(stored.value, known)
    )


def refuse_ourselves(resource: Kind, shown: Digest) -> None:
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


def refuse_false_claim(resource: Kind, stored: StoredDigest, shown: Digest) -> None:
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


def refuse_part(peer: Peer, resource: Kind, stored: StoredDigest) -> None:
    """Refuse to send a partial replica to another node than the one that filters this node.

    Raises:
        PeerError: this node has a partial replica, and ``peer`` is not the node that filters it.
    """
    chosen_by = stored.value.part_of
    if chosen_by and not same_endpoint(chosen_by, peer.endpoint(resource.kind)):
        raise PeerError(
            f"This node has only a part of the {resource.kind}, which {chosen_by} chooses; they are exchanged with "
            f"that node and with no other. Take them out of what {peer} gets, or let it have all of them."
        )


T = TypeVar("T")

logger = logging.getLogger(__name__)


class Passage:
    """One stream brought level, under a lease. ``known`` is the peer's digest as far as it is known.

    ``number`` numbers what was committed meanwhile and tells whether it may be sent now, or must stay behind
    something that it refers to. It stops before the next page if it is interrupted, and, once it has sent one, when
    its time is up: however long it takes to find the first page, everybody gets ahead.
    """

    def __init__(
        self,
        resource: Kind,
        lease: Lease,
        *,
        number: Callable[[], tuple[StoredDigest, bool]],
        client: Callable[[], PeerClient],
        is_interrupted: Callable[[], bool],
        is_time_up: Callable[[], bool],
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._number_changes = number
        self._is_our_turn = True
        self._client = client
        self._is_interrupted = is_interrupted
        self._is_time_up = is_time_up
        self._has_posted = False
        self._peer = lease.stream.peer
        self._resource = resource
        self._lease = lease
        self._run = new_run(conf.base_url, self._peer.url)
        #: How many entries the peer has taken.
        self.delivered = 0
        #: What every log record of it carries.
        self.facts = {"run": self._run.name, "peer": self._peer.name, "kind": resource.kind}
        #: Endpoints, in lower case, of which the peer does not believe what our digest says.
        self._left_out = lease.stream.left_out_endpoints()
        self._peer_limit = PeerLimit(resource, self._peer)
        #: The page that was posted last.
        self._posted: Page | None = None
        self._limit = conf.page_size
        self._catch_up_limit = conf.catch_up_page_size
        self.known = known_digest(lease.stream)

    def bring_level(self, stored: StoredDigest) -> None:
        """Deliver until the peer lacks nothing of what ``stored``, or a later digest of ours, contains.

        Raises:
            DeliveryInterrupted: it goes on later, from where it is.
            PeerError
        """
        resource, peer = self._resource, self._peer
        refuse_part(peer, resource, stored)
        while True:
            if self.known is None:
                stored = self._catch_up()
            assert self.known is not None
            if not self._lags(stored):
                return
            if not self._push(stored):
                self.known = None

    def bring_level_in_pages_that_fit(self, stored: StoredDigest) -> None:
        """Push until the peer is in sync, with smaller pages if the peer answers 413.

        Raises:
            DeliveryInterrupted: it goes on later, from where it is.
            PeerError
        """
        while True:
            try:
                return self.bring_level(stored)
            except PeerRefused as refusal:
                if refusal.status != 413:
                    raise
                if self._limit == self._catch_up_limit == 1:
                    stored = self._leave_out(refusal)
                    continue
                self._limit = max(self._limit // 4, 1)
                self._catch_up_limit = max(self._catch_up_limit // 4, 1)
                logger.info(
                    "%s: pages of %d from here on; %s", self._lease.stream, self._limit, refusal, extra=self.facts
                )
                stored = self._number()

    def _leave_out(self, refusal: PeerRefused) -> StoredDigest:
        """Leave the version that the peer finds too large, alone on its page, out of this feed and later ones."""
        if self._posted is None or len(self._posted.rows) != 1:
            raise refusal
        [row], [entry] = self._posted.rows, self._posted.entries
        self._peer_limit.hold(row, len(entry.encode()), str(refusal))
        self._limit, self._catch_up_limit = conf.page_size, conf.catch_up_page_size
        self.known = None
        return self._number()

    def try_held_again(self, *, at_once: bool) -> None:
        """Send the versions that are held for the peer once more, each alone; give new ticks to those that it accepts.

        Raises:
            PeerError: the peer cannot be reached, or refuses a version for another reason than its size.
        """
        for row in self._peer_limit.due(at_once=at_once):
            stored = load_digest(self._resource)
            scope = scope_for(self._resource, self._peer)
            page = read_version(self._resource, stored, row, scope)
            if page is None:
                continue
            try:
                self._post(page, stored, SyncMode.IMMEDIATE, scope)
            except PeerRefused as refusal:
                if refusal.status not in (400, 413):
                    raise
                if refusal.status == 413:
                    self._peer_limit.postpone(row)
                    continue
            self._peer_limit.release(row)

    def _number(self) -> StoredDigest:
        stored, self._is_our_turn = self._number_changes()
        return stored

    def _push(self, stored: StoredDigest) -> bool:
        """Post immediate feeds while they are contiguous; false if it takes a catch-up to go on."""
        resource, peer = self._resource, self._peer
        wanted = wanted_by(peer, resource)
        assert self.known is not None
        if resource.is_filtered:
            review(resource, peer, self.known)
            stored = self._number()
        scope = scope_for(resource, peer)
        page = read_page(
            resource, stored, self.known, limit=self._limit, wanted=wanted, scope=scope, peer_limit=self._peer_limit
        )
        while _is_contiguous(page.states, self.known):
            sent, sent_digest = page, stored

            def read_next(
                cursor: Digest = page.cursor, owed_behind: int | None = page.owed_behind
            ) -> tuple[StoredDigest, Page]:
                # Every immediate page is of its own moment: it does not end with our digest being taken over.
                numbered = self._number()
                return numbered, read_page(
                    resource,
                    numbered,
                    cursor,
                    limit=self._limit,
                    wanted=wanted,
                    scope=scope,
                    owed_behind=owed_behind,
                    peer_limit=self._peer_limit,
                )

            try:
                answer, following = self._exchange(sent, sent_digest, SyncMode.IMMEDIATE, scope, read_next)
            except PeerRefused as refusal:
                if refusal.status != 400:
                    raise
                logger.info("%s: %s; catching up", self._lease.stream, refusal, extra=self.facts)
                return False
            self._note_progress(answer, sent.states, sent_digest)
            if answer.digest is not None and knows_more_of_us(resource, answer.digest):
                return False  # whatever it has under the ticks just sent may be something else
            if following is None:
                return True
            self._renew()
            stored, page = following
        return not self._lags(stored)

    def _lags(self, stored: StoredDigest) -> bool:
        assert self.known is not None
        return lags(self._peer, self._resource, stored, self.known, left_out=self._left_out)

    def _note_progress(self, answer: Answer, states: Iterable[SyncState], stored: StoredDigest) -> None:
        assert self.known is not None
        if answer.digest is not None:
            refuse_false_claim(self._resource, stored, answer.digest)
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
        target = self._client().read_digest(resource.kind)
        refuse_ourselves(resource, target)
        if knows_more_of_us(resource, target):
            recover(self._client(), self._peer, resource, target, is_interrupted=self._is_interrupted)
        review(resource, self._peer, target)
        stored = self._number()
        scope = scope_for(resource, self._peer)
        is_missing = owes(resource, self._peer) or any(
            missing.endpoint.lower() not in self._left_out for missing in missing_ranges(stored.value, target)
        )
        if not is_missing and not is_let_in(resource, self._peer, target):
            self.known = target
            return stored
        if self._watch is not None:
            self._watch.begin(count_missing(resource, stored, target, scope))
        page = read_page(resource, stored, target, limit=self._catch_up_limit, scope=scope, peer_limit=self._peer_limit)
        sent: set[str] = set()
        while True:
            sent.update(state.endpoint.lower() for state in page.states)

            def read_next(cursor: Digest = page.cursor, owed_behind: int | None = page.owed_behind) -> Page:
                return read_page(
                    resource,
                    stored,
                    cursor,
                    limit=self._catch_up_limit,
                    scope=scope,
                    owed_behind=owed_behind,
                    peer_limit=self._peer_limit,
                )

            answer, following = self._exchange(page, stored, SyncMode.CATCH_UP, scope, read_next)
            if following is None:
                break
            page = following
            self._renew()
        after = answer.digest or target.merge(stored.value, stamp=0)
        self._note_end(stored, after, sent)
        self.known = after
        return stored

    def _note_end(self, stored: StoredDigest, after: Digest, sent: set[str]) -> None:
        """Compare the peer's digest after a catch-up with ours.

        A peer need not believe what our digest says of other endpoints, but must contain what it was sent.
        """
        refuse_false_claim(self._resource, stored, after)
        lacking = {missing.endpoint.lower() for missing in missing_ranges(stored.value, after)}
        self._expect(not lacking & {*sent, self._resource.endpoint.lower()}, after)
        for endpoint in sorted(lacking - self._left_out):
            logger.warning("%s leaves out what is claimed of %s", self._lease.stream, endpoint, extra=self.facts)
        if lacking != self._left_out:
            self._left_out = frozenset(lacking)
            note_left_out(self._lease.stream, self._left_out)

    def _exchange(
        self, page: Page, stored: StoredDigest, mode: SyncMode, scope: Scope | None, read_next: Callable[[], T]
    ) -> tuple[Answer, T | None]:
        """Post ``page`` and, if it is not the last, read the next one while the peer applies it.

        ``scope`` is what the page was selected by, whatever the peer may have by now.
        """
        if self._is_interrupted() or (self._has_posted and self._is_time_up()):
            raise DeliveryInterrupted("The delivery was stopped between two pages; it goes on from here.")
        if not self._is_our_turn:
            raise DeliveryInterrupted("What it refers to is being delivered by another process, and goes first.")
        if scope is not None and not self._lease.stream.is_part:
            note_given(self._resource, self._peer)
            self._lease.stream.is_part = True
        self._has_posted = True
        self._posted = page
        if page.is_last:
            answer, following = self._post(page, stored, mode, scope), None
        else:
            answer, following = meanwhile(lambda: self._post(page, stored, mode, scope), read_next)
        self._note_scope(page, scope)
        return answer, following

    def _note_scope(self, page: Page, scope: Scope | None) -> None:
        if scope is not None:
            scope.settle(page.owed)
        elif page.is_last and self._lease.stream.is_part:
            note_whole(self._resource, self._peer)
            self._lease.stream.is_part = False

    def _expect(self, moved_on: bool, digest: Digest) -> None:
        if not moved_on:
            raise PeerMisbehaved(f"The peer answered 200, but its digest did not move on: {digest}")

    def _post(self, page: Page, stored: StoredDigest, mode: SyncMode, scope: Scope | None) -> Answer:
        resource = self._resource
        url = f"{resource.endpoint}/$syncSource"
        is_end = page.is_last or mode is SyncMode.IMMEDIATE
        feed = render_feed(
            page.entries,
            url=url,
            title=f"{resource.kind} of {conf.base_url}",
            digest=stored.value if scope is None else stored.value.as_part_of(resource.endpoint),
            now=now(),
            sync_mode=mode,
            paging=Paging(next_url="" if is_end else f"{url}?startIndex={len(page.states) + 1}"),
            referrers=page.referrers,
        )
        with span("post_page", **self.facts, mode=str(mode), entries=len(page.states)):
            answer = self._client().post_page(
                resource.kind,
                feed,
                run=self._run,
                # They are for the log, and for whoever watches; the peer keeps them.
                with_results=self._watch is not None or logger.isEnabledFor(logging.INFO),
            )
        self._note_page(page, mode, answer)
        return answer

    def _note_page(self, page: Page, mode: SyncMode, answer: Answer) -> None:
        self.delivered += len(page.states)
        if self._watch is not None:
            self._watch.see(len(page.states), [result.status for result in answer.exceptions])
        if not logger.isEnabledFor(logging.INFO):
            return
        facts = {**self.facts, "ticks": _ticks(page.states), "entries": len(page.states), "mode": str(mode)}
        logger.info("%s: %d entries taken", self._lease.stream, len(page.states), extra=facts)
        for result in answer.exceptions:
            said = "; ".join(diagnosis.message for diagnosis in result.diagnoses)
            logger.info(
                "%s: %s %s %s %s", self._lease.stream, result.uuid, result.status, result.message, said, extra=facts
            )

    def _renew(self) -> None:
        if not self._lease.renew(self.known):
            raise PeerError("The stream was taken over by another process; it goes on from here.")


def _is_contiguous(states: Iterable[SyncState], known: Digest) -> bool:
    states = list(states)
    order = TickOrder(known, contiguous=True)
    return bool(states) and all(order.check(state) is None for state in states)


def _ticks(states: Iterable[SyncState]) -> dict[str, list[int]]:
    """Return the first and the last tick of each endpoint."""
    ranges: dict[str, list[int]] = {}
    for state in states:
        first_and_last = ranges.setdefault(state.endpoint, [state.tick, state.tick])
        first_and_last[1] = state.tick
    return ranges
