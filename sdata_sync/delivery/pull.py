"""Pull the changes of a peer: read its digest and its source feed, apply each page, report the results (SData sync 5.1
to 5.7).

While a page is applied here, the results of the page before it are posted to the peer, and the page after it is
read. An interrupted pull goes on where it stopped, because the digest moves on with every page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

from ..atom.feed import FeedHeader, read_sync_feed
from ..conf import conf
from ..core.digest import Digest
from ..exceptions import (
    DeliveryInterrupted,
    DocumentError,
    FeedError,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    PeerUnreachable,
)
from ..sync.apply.receive import Receipt, receive_feed
from ..sync.apply.results import render_results
from ..sync.content.conditions import answer_conditions, unanswered_conditions
from ..sync.content.deferred import settle_others, settle_waiting
from ..sync.log.digests import load_digest
from ..sync.runs import RunLabel, new_run
from .client import ABSENT, PeerClient, RemoteFeed
from .progress import Watch
from .threads.overlap import meanwhile

if TYPE_CHECKING:
    from ..atom.entry import Entry
    from ..kind import Kind
    from ..models import Peer

#: What a peer answers that does not share a kind, or not with this node.
_NOT_SHARED = (*ABSENT, 401, 403)


def read_digest_for_deletions(client: PeerClient, peer: Peer, resource: Kind) -> Digest:
    """Read the digest that ``peer`` has of ``resource`` (SData sync 5.1, network); note it for deletions from there.

    A source that does not say with a deletion what it has of other kinds is asked afterwards: see ``sync.conditions``.

    Raises:
        PeerError: the peer cannot be reached, or refuses to answer.
    """
    using, kind = resource.database, resource.kind
    conditions = unanswered_conditions(peer.endpoint(kind), kind, using)
    try:
        shown = client.read_digest(kind)
    except PeerRefused as refusal:
        if conditions and refusal.status in _NOT_SHARED:
            answer_conditions(conditions, kind, Digest(), using)
            settle_others(resource)
        raise
    if conditions:
        answer_conditions(conditions, kind, shown, using)
        settle_others(resource)
    return shown


logger = logging.getLogger(__name__)


class Reporter:
    """Posts the result feeds of one run, until the source does not want them."""

    def __init__(self, client: PeerClient, kind: str, label: RunLabel) -> None:
        self._client, self._kind, self._label = client, kind, label
        self._is_wanted = True

    def report(self, results: bytes | None) -> None:
        """Post one result feed, if there is one.

        Raises:
            PeerError: the source cannot be reached.
        """
        if results is None or not self._is_wanted:
            return
        try:
            self._client.post_results(self._kind, results, run=self._label)
        except PeerRefused as refusal:
            # Not every peer has the URL, and not everybody who may read may report: that is no reason to stop.
            self._is_wanted = False
            level = logging.DEBUG if refusal.status in ABSENT else logging.WARNING
            logger.log(level, "The results are not reported any more: %s", refusal)


def take_inventory(client: PeerClient, peer: Peer, resource: Kind) -> Iterator[list[Entry]]:
    """Yield the entries of all that ``peer`` has of ``resource``, tombstones included, page by page.

    Raises:
        PeerError: the peer cannot be reached, refuses the request, or answers what cannot be read.
    """
    run = new_run(peer.url, conf.base_url)
    nothing = Digest(origin=resource.endpoint)
    feed = client.open_source(resource.kind, nothing, run=run, tracking_id=str(uuid4()), count=conf.catch_up_page_size)
    try:
        page = feed.first
        while True:
            with page as body:
                try:
                    reader = read_sync_feed(body)
                    entries = list(reader.entries())
                except (DocumentError, FeedError) as error:
                    raise PeerMisbehaved(f"A page of {peer}: {error}") from error
            feed.saw(len(entries))
            yield entries
            if not reader.next_url:
                return
            page = feed.following(reader.next_url)
    finally:
        feed.close()


def pull(
    client: PeerClient,
    peer: Peer,
    resource: Kind,
    watch: Watch,
    *,
    known: Digest | None = None,
    in_a_hurry: bool = False,
    before_applying: Callable[[], None] = lambda: None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> int:
    """Apply all of ``resource`` that this node lacks and ``peer`` has; return how many versions the peer leaves out.

    ``known`` is what the peer is told that we have; without it, our digest. What is marked here and not numbered
    is numbered when the feed is applied, never before the peer has been heard: this node may have been restored.
    ``in_a_hurry`` asks for an answer at once, where little is expected. ``before_applying`` is called when the peer
    has chosen what it sends: whatever that refers to was committed there before. ``is_interrupted`` is asked
    between two pages. A peer leaves out what is larger than this node accepts (``MAX_BODY_BYTES``).

    Raises:
        DeliveryInterrupted: it goes on later, from where it is.
        PeerError: the peer cannot be reached, refuses, or answers what cannot be read.
    """
    known = load_digest(resource).value if known is None else known
    pulled = _Pull(client, peer, resource, watch, is_interrupted)
    pulled.run(known, in_a_hurry=in_a_hurry, before_applying=before_applying)
    return pulled.left_out


def pull_in_turn(
    client: PeerClient,
    peer: Peer,
    resource: Kind,
    ahead: Sequence[Kind],
    is_interrupted: Callable[[], bool],
    *,
    in_a_hurry: bool = False,
) -> None:
    """Pull ``resource``; and ``ahead``, what it refers to, when it has been chosen and before it is applied.

    Some of that may have been committed together with what refers to it, after its own kind was last looked at.

    Raises:
        DeliveryInterrupted: it goes on later, from where it is.
        PeerError
    """
    ahead = [other for other in ahead if other.is_target]

    def pull_ahead() -> None:
        if not ahead:
            return
        *further, nearest = ahead
        try:
            pull_in_turn(client, peer, nearest, further, is_interrupted, in_a_hurry=True)
        except DeliveryInterrupted:
            raise
        except PeerError as error:
            # It is noted when its own turn comes. What refers to it waits here.
            facts = {"peer": peer.name, "kind": nearest.kind}
            logger.info("%s cannot go ahead of %s: %s", nearest.kind, resource.kind, error, extra=facts)

    pull(
        client,
        peer,
        resource,
        Watch(),
        in_a_hurry=in_a_hurry,
        before_applying=pull_ahead,
        is_interrupted=is_interrupted,
    )


class _Pull:
    def __init__(
        self,
        client: PeerClient,
        peer: Peer,
        resource: Kind,
        watch: Watch,
        is_interrupted: Callable[[], bool],
    ) -> None:
        self._client = client
        self._is_interrupted = is_interrupted
        self._resource = resource
        self._watch = watch
        self.left_out = 0
        self._label = new_run(peer.url, conf.base_url)
        self._reporter = Reporter(client, resource.kind, self._label)

    def run(self, known: Digest, *, in_a_hurry: bool, before_applying: Callable[[], None]) -> None:
        feed = self._open(known, in_a_hurry=in_a_hurry)
        try:
            before_applying()
            self._read(feed)
        finally:
            feed.close()
        settle_waiting(self._resource)

    def _open(self, known: Digest, *, in_a_hurry: bool) -> RemoteFeed:
        kind, count = self._resource.kind, conf.catch_up_page_size
        if in_a_hurry:
            try:
                return self._client.open_source(kind, known, run=self._label, tracking_id="", count=count)
            except (PeerUnreachable, PeerRefused) as error:
                # It takes longer than a request may, or the peer knows only asynchronous calls.
                logger.info("%s: %s; asked again, asynchronously", kind, error)
        return self._client.open_source(kind, known, run=self._label, tracking_id=str(uuid4()), count=count)

    def _read(self, feed: RemoteFeed) -> None:
        page: BinaryIO | None = feed.first
        report: bytes | None = None
        while page is not None:
            with page as body:
                header = self._header(body)
                self.left_out = header.left_out
                if self._watch.total is None:
                    self._watch.begin(header.total)
                receipt, page = self._apply(body, self._next_exchange(feed, header.next_url, report))
            feed.saw(len(receipt.results))
            if page is None and receipt.next_url:  # the link stood behind the entries
                page = feed.following(receipt.next_url)
            report = render_results(self._resource, receipt.results, receipt.digest) if receipt.results else None
            self._watch.see(len(receipt.results), [r.status for r in receipt.results if r.status != 200])
            if page is not None and self._is_interrupted():
                page.close()
                self._reporter.report(report)
                raise DeliveryInterrupted("The pull was stopped between two pages; it goes on from here.")
        self._reporter.report(report)

    def _next_exchange(self, feed: RemoteFeed, next_url: str, report: bytes | None) -> Callable[[], BinaryIO | None]:
        def exchange() -> BinaryIO | None:
            self._reporter.report(report)
            return feed.following(next_url) if next_url else None

        return exchange

    def _apply(self, body: BinaryIO, exchange: Callable[[], BinaryIO | None]) -> tuple[Receipt, BinaryIO | None]:
        def apply() -> Receipt:
            try:
                return receive_feed(self._resource, body)
            except (DocumentError, FeedError) as error:
                raise PeerMisbehaved(f"A page of {self._client.url}/{self._resource.kind}: {error}") from error

        page, receipt = meanwhile(exchange, apply)
        return receipt, page

    def _header(self, body: BinaryIO) -> FeedHeader:
        try:
            header = read_sync_feed(body).header
        except (DocumentError, FeedError) as error:
            raise PeerMisbehaved(f"A page of {self._client.url}/{self._resource.kind}: {error}") from error
        body.seek(0)
        return header
