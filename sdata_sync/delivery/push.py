"""Push one kind to one peer: immediate feeds while the ticks are contiguous, a catch-up feed when they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, TypeVar

from ..atom.feed import SyncMode
from ..atom.renderer import Paging, render_feed
from ..conf import conf
from ..core.order import TickOrder
from ..core.ranges import missing_ranges
from ..core.state import SyncState, same_endpoint
from ..core.text import fold
from ..exceptions import DeliveryInterrupted, FeedRefused, PeerError, PeerMisbehaved, PeerRefused
from ..sync import scope as parts
from ..sync.db.clock import now
from ..sync.log.digests import StoredDigest, load_digest
from ..sync.runs import new_run
from ..sync.scope import Scope, has_resends, is_to_become_full, mark_full, mark_partial, review, scope_for
from ..sync.select.changes import Page, is_own, prepare_page, prepare_version
from ..sync.select.feed import count_missing
from ..sync.select.oversize import PeerLimit
from ..sync.stamp.restore_gap import ensure_checked
from ..sync.stamp.scan import track_existing
from ..sync.stamp.stamper import check_and_assign_ticks
from ..tracing import span
from .lease import Lease, known_digest, store_left_out
from .recover import knows_more_of_us, recover
from .threads.overlap import overlap
from .waiting import note_results

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind
    from ..models import Peer
    from .client import Answer
    from .progress import Progress
    from .session import PeerSession


def wanted_by(peer: Peer, kind: Kind) -> Callable[[str], bool]:
    """Return the predicate of the endpoints whose changes are pushed to ``peer`` at once.

    These are the changes of this node. With ``Peer.relay`` they are all changes but those of the peer itself.
    """
    if not peer.relay:
        return is_own(kind)
    theirs = peer.endpoint(kind.name)
    return lambda endpoint: not same_endpoint(endpoint, theirs)


def lacks_changes(
    peer: Peer, kind: Kind, stored: StoredDigest, known: Digest, *, left_out: Collection[str] = ()
) -> bool:
    """Return True if ``peer``, whose digest is ``known``, lacks a change that is pushed at once.

    ``left_out`` are endpoints, in lower case, for which the peer does not accept the ticks of this node's digest.
    """
    wanted = wanted_by(peer, kind)
    return has_resends(kind, peer) or any(
        wanted(missing.endpoint) and fold(missing.endpoint) not in left_out
        for missing in missing_ranges(stored.value, known)
    )


def check_peer_digest(kind: Kind, shown: Digest) -> None:
    """Check that changes may be exchanged with the peer whose digest is ``shown``.

    Raises:
        PeerMisbehaved: the peer has the URL of this node, claims a tick that this node cannot have assigned, or one
            of both has a partial replica that a third node filters.
    """
    stored = load_digest(kind)
    check_own_tick(kind, stored, shown)
    if shown.origin and same_endpoint(shown.origin, kind.endpoint):
        raise PeerMisbehaved(
            f"The peer calls itself {shown.origin}, and so are we called; two nodes must not have one BASE_URL."
        )
    try:
        parts.check_partial_exchange(kind, stored.value, shown)
    except FeedRefused as error:
        raise PeerMisbehaved(str(error)) from error


def check_own_tick(kind: Kind, stored: StoredDigest, shown: Digest) -> None:
    """Check that the tick which a peer's digest has for this node can be true.

    A peer with a higher tick takes changes that this node has not made yet for known.

    Raises:
        PeerMisbehaved: the tick is more than ``MAX_TICK_LEAP`` above the tick of this node.
    """
    ours, theirs = stored.value.tick(kind.endpoint), shown.tick(kind.endpoint)
    if theirs - ours > conf.max_tick_leap:
        raise PeerMisbehaved(
            f"The digest of {shown.origin or 'the peer'} says that this node is at tick {theirs}, which stands at "
            f"{ours}. So the peer would take every change of this node for known. Another node has told it so. Run "
            "`manage.py sync_rejoin --confirm NAME` on the peer, with its name for this node."
        )


def check_partial_replica(peer: Peer, kind: Kind, stored: StoredDigest) -> None:
    """Check that a partial replica of this node is sent only to the node that filters it.

    Raises:
        PeerError: this node has a partial replica, and ``peer`` is not the node that filters it.
    """
    chosen_by = stored.value.part_of
    if chosen_by and not same_endpoint(chosen_by, peer.endpoint(kind.name)):
        raise PeerError(
            f"This node has a partial replica of the {kind.name}, which {chosen_by} filters. It is exchanged with "
            f"that node and with no other. Take the kind out of what {peer} gets, or let this node have all rows."
        )


T = TypeVar("T")

logger = logging.getLogger(__name__)


class Push:
    """Pushes one kind to the peer of a session, under a lease.

    The session holds the known digest of the peer.

    Attributes:
        delivered: the number of entries that the peer has accepted.
        facts: what every log record of the push carries.
    """

    def __init__(
        self,
        session: PeerSession,
        kind: Kind,
        lease: Lease,
        *,
        sends_ahead: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self._session = session
        self._kind = kind
        self._lease = lease
        self._peer = lease.stream.peer
        self._progress = progress
        self._sends_ahead = sends_ahead
        #: False when a kind that this one refers to must be delivered first, by another process.
        self._is_our_turn = True
        self._has_posted = False
        self._run = new_run(conf.base_url, self._peer.url)
        self.delivered = 0
        self.facts = {"run": self._run.name, "peer": self._peer.name, "kind": kind.name}
        #: The endpoints, in lower case, for which the peer does not accept the ticks of this node's digest.
        self._left_out = lease.stream.left_out_endpoints()
        self._peer_limit = PeerLimit(kind, self._peer)
        #: The page that was posted last.
        self._posted: Page | None = None
        self._limit = conf.page_size
        self._catch_up_limit = conf.catch_up_page_size
        session.set_known(kind.name, known_digest(lease.stream))

    @property
    def known(self) -> Digest | None:
        """The peer's digest of the kind as far as this node knows it; ``None`` if the peer must be asked."""
        return self._session.known.get(self._kind.name)

    def _set_known(self, digest: Digest | None) -> None:
        self._session.set_known(self._kind.name, None if digest is None else self._as_delivered(digest))

    def _as_delivered(self, digest: Digest) -> Digest:
        """Return the peer's ``digest`` without the changes of this node that others have given to the peer.

        A kind with a filter keeps them: the filter must know what the peer has.
        """
        return digest if self._kind.is_filtered else digest.as_delivered_by(self._kind.endpoint)

    def push_until_in_sync(self, stored: StoredDigest) -> None:
        """Push until the peer lacks nothing that ``stored``, or a later digest of this node, contains.

        If the peer answers 413 the pages become smaller. A version that is too large alone is left out and kept as a
        held version.

        Raises:
            DeliveryInterrupted: the session is to stop, or another process must deliver a referenced kind first. The
                next push continues after the last page.
            PeerError: the peer cannot be reached, refuses the request, or its answer cannot be read.
        """
        while True:
            try:
                return self._push_pages(stored)
            except PeerRefused as refusal:
                if refusal.status != 413:
                    raise
                if self._limit == self._catch_up_limit == 1:
                    stored = self._leave_out(refusal)
                    continue
                self._limit = max(self._limit // 4, 1)
                self._catch_up_limit = max(self._catch_up_limit // 4, 1)
                logger.info("%s: pages of %d now; %s", self._lease.stream, self._limit, refusal, extra=self.facts)
                stored = self._assign_ticks()

    def _push_pages(self, stored: StoredDigest) -> None:
        check_partial_replica(self._peer, self._kind, stored)
        while True:
            if self.known is None:
                stored = self._catch_up()
            assert self.known is not None
            if not self._lacks_changes(stored):
                return
            if not self._push_immediate(stored):
                self._set_known(None)

    def _leave_out(self, refusal: PeerRefused) -> StoredDigest:
        """Hold the version that the peer finds too large, alone on its page, out of this feed and later ones."""
        if self._posted is None or len(self._posted.rows) != 1:
            raise refusal
        [row], [entry] = self._posted.rows, self._posted.entries
        self._peer_limit.hold(row, len(entry.encode()), str(refusal))
        self._limit, self._catch_up_limit = conf.page_size, conf.catch_up_page_size
        self._set_known(None)
        return self._assign_ticks()

    def retry_oversize(self, *, at_once: bool) -> None:
        """Post the versions that are held for the peer once more, each alone; restamp those that the peer accepts.

        Without ``at_once`` only the versions whose ``retry_at`` has passed.

        Raises:
            PeerError: the peer cannot be reached, or refuses a version for another reason than its size.
        """
        for row in self._peer_limit.due(at_once=at_once):
            stored = load_digest(self._kind)
            scope = scope_for(self._kind, self._peer)
            page = prepare_version(self._kind, stored, row, scope)
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

    def _assign_ticks(self) -> StoredDigest:
        """Assign ticks to all committed changes, and deliver the kinds that they refer to."""
        stored = check_and_assign_ticks(self._kind)
        if self._sends_ahead:
            self._is_our_turn = self._session.send_ahead(self._kind)
        return stored

    def _push_immediate(self, stored: StoredDigest) -> bool:
        """Post immediate feeds while the ticks are contiguous; return False if a catch-up has to follow."""
        kind, peer = self._kind, self._peer
        wanted = wanted_by(peer, kind)
        assert self.known is not None
        if kind.is_filtered:
            review(kind, peer, self.known)
            stored = self._assign_ticks()
        scope = scope_for(kind, peer)
        page = prepare_page(
            kind, stored, self.known, limit=self._limit, wanted=wanted, scope=scope, peer_limit=self._peer_limit
        )
        while _is_contiguous(page.states, self.known):
            sent, sent_digest = page, stored

            def read_next(
                cursor: Digest = page.cursor, resend_after: int | None = page.resend_after
            ) -> tuple[StoredDigest, Page]:
                # The target does not take over the digest of an immediate feed, so each page has a digest of its own.
                stamped = self._assign_ticks()
                return stamped, prepare_page(
                    kind,
                    stamped,
                    cursor,
                    limit=self._limit,
                    wanted=wanted,
                    scope=scope,
                    resend_after=resend_after,
                    peer_limit=self._peer_limit,
                )

            try:
                answer, following = self._exchange(sent, sent_digest, SyncMode.IMMEDIATE, scope, read_next)
            except PeerRefused as refusal:
                if refusal.status != 400:
                    raise
                logger.info("%s: %s; a catch-up follows", self._lease.stream, refusal, extra=self.facts)
                return False
            self._advance_known(answer, sent.states, sent_digest)
            if answer.digest is not None and knows_more_of_us(kind, answer.digest):
                return False  # the peer may have other changes under the ticks that were just sent
            if following is None:
                return True
            self._renew()
            stored, page = following
        return not self._lacks_changes(stored)

    def _lacks_changes(self, stored: StoredDigest) -> bool:
        assert self.known is not None
        return lacks_changes(self._peer, self._kind, stored, self.known, left_out=self._left_out)

    def _advance_known(self, answer: Answer, states: Iterable[SyncState], stored: StoredDigest) -> None:
        """Take over the digest that the peer answered; without one, advance the known digest by what was sent."""
        known = self.known
        assert known is not None
        if answer.digest is not None:
            check_own_tick(self._kind, stored, answer.digest)
            self._expect(all(answer.digest.contains(state) for state in states), answer.digest)
            self._set_known(answer.digest)
        else:
            for state in states:
                known = known.advance(state, stamp=0)
            self._set_known(known)

    def _catch_up(self) -> StoredDigest:
        """Push all changes that the peer lacks by the digest that it has now; return this node's digest of that moment.

        The feed is never selected with a remembered digest: at its end the peer takes over this node's digest. If the
        peer was restored from a backup meanwhile, that would hide what the peer lost.
        """
        kind = self._kind
        ensure_checked(kind)
        track_existing(kind)
        target = self._session.client().read_digest(kind.name)
        check_peer_digest(kind, target)
        if knows_more_of_us(kind, target):
            client = self._session.client()
            recover(client, self._peer, kind, target, is_interrupted=lambda: self._session.is_interrupted)
        target = self._as_delivered(target)
        review(kind, self._peer, target)
        stored = self._assign_ticks()
        scope = scope_for(kind, self._peer)
        is_missing = has_resends(kind, self._peer) or any(
            fold(missing.endpoint) not in self._left_out for missing in missing_ranges(stored.value, target)
        )
        if not is_missing and not is_to_become_full(kind, self._peer, target):
            self._set_known(target)
            return stored
        if self._progress is not None:
            self._progress.set_total(count_missing(kind, stored, target, scope))
        page = prepare_page(kind, stored, target, limit=self._catch_up_limit, scope=scope, peer_limit=self._peer_limit)
        sent: set[str] = set()
        while True:
            sent.update(fold(state.endpoint) for state in page.states)

            def read_next(cursor: Digest = page.cursor, resend_after: int | None = page.resend_after) -> Page:
                return prepare_page(
                    kind,
                    stored,
                    cursor,
                    limit=self._catch_up_limit,
                    scope=scope,
                    resend_after=resend_after,
                    peer_limit=self._peer_limit,
                )

            answer, following = self._exchange(page, stored, SyncMode.CATCH_UP, scope, read_next)
            if following is None:
                break
            page = following
            self._renew()
        after = answer.digest or target.merge(stored.value, stamp=0)
        self._check_end(stored, after, sent)
        self._set_known(after)
        return stored

    def _check_end(self, stored: StoredDigest, after: Digest, sent: set[str]) -> None:
        """Compare the peer's digest after a catch-up with the digest of this node.

        A peer need not accept the ticks that this node's digest has for other endpoints, but must contain the changes
        of the endpoints ``sent``.
        """
        check_own_tick(self._kind, stored, after)
        lacking = {fold(missing.endpoint) for missing in missing_ranges(stored.value, after)}
        self._expect(not lacking & {*sent, fold(self._kind.endpoint)}, after)
        for endpoint in sorted(lacking - self._left_out):
            logger.warning(
                "%s: the peer does not accept this node's tick for %s", self._lease.stream, endpoint, extra=self.facts
            )
        if lacking != self._left_out:
            self._left_out = frozenset(lacking)
            store_left_out(self._lease.stream, self._left_out)

    def _exchange(
        self, page: Page, stored: StoredDigest, mode: SyncMode, scope: Scope | None, read_next: Callable[[], T]
    ) -> tuple[Answer, T | None]:
        """Post ``page`` and, if it is not the last one, read the next page while the peer applies it.

        ``scope`` is the scope that the page was selected with, even if another one applies by now. When its time is
        up a push still posts its first page, so that every push makes progress.
        """
        if self._session.is_interrupted or (self._has_posted and self._session.is_to_stop):
            raise DeliveryInterrupted("The push was stopped between two pages; the next push continues here.")
        if not self._is_our_turn:
            raise DeliveryInterrupted("Another process is delivering a kind that this one refers to, which goes first.")
        if scope is not None and not self._lease.stream.is_partial:
            mark_partial(self._kind, self._peer)
            self._lease.stream.is_partial = True
        self._has_posted = True
        self._posted = page
        if page.is_last:
            answer, following = self._post(page, stored, mode, scope), None
        else:
            answer, following = overlap(lambda: self._post(page, stored, mode, scope), read_next)
        if scope is not None:
            scope.mark_resent(page.resends)
        elif page.is_last and self._lease.stream.is_partial:
            mark_full(self._kind, self._peer)
            self._lease.stream.is_partial = False
        return answer, following

    def _expect(self, moved_on: bool, digest: Digest) -> None:
        if not moved_on:
            raise PeerMisbehaved(f"The peer answered 200, but its digest did not move on: {digest}")

    def _post(self, page: Page, stored: StoredDigest, mode: SyncMode, scope: Scope | None) -> Answer:
        kind = self._kind
        url = f"{kind.endpoint}/$syncSource"
        is_end = page.is_last or mode is SyncMode.IMMEDIATE
        feed = render_feed(
            page.entries,
            url=url,
            title=f"{kind.name} of {conf.base_url}",
            digest=stored.value if scope is None else stored.value.as_part_of(kind.endpoint),
            now=now(),
            sync_mode=mode,
            paging=Paging(next_url="" if is_end else f"{url}?startIndex={len(page.states) + 1}"),
            referrers=page.referrers,
        )
        with span("post_page", **self.facts, mode=str(mode), entries=len(page.states)):
            answer = self._session.client().post_page(
                kind.name,
                feed,
                run=self._run,
            )
        note_results(self._lease.stream, [row.uuid for row in page.rows], answer.exceptions)
        self._count_page(page, mode, answer)
        return answer

    def _count_page(self, page: Page, mode: SyncMode, answer: Answer) -> None:
        self.delivered += len(page.states)
        if self._progress is not None:
            self._progress.count(len(page.states), [result.status for result in answer.exceptions])
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
            raise PeerError("Another process has taken over the lease of the stream; it continues from here.")


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
