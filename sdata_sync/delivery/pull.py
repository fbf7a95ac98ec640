"""Pull the changes of a peer: read its digest and its source feed, apply each page, report the results (SData sync 5.1
to 5.7).

While a page is applied, the results of the page before it are posted to the peer, and the page after it is received.
An interrupted pull continues where it stopped, because the digest of this node advances with every page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
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
from ..sync.content.deferred import retry_others, retry_waiting
from ..sync.log.digests import load_digest
from ..sync.runs import RunLabel, new_run
from ..sync.trust import Sender
from .client import ABSENT, PeerClient, RemoteFeed, RemotePage
from .progress import Progress
from .threads.overlap import overlap
from .waiting import note_digest

if TYPE_CHECKING:
    from ..atom.entry import Entry
    from ..kind import Kind
    from ..models import Peer

logger = logging.getLogger(__name__)

#: The statuses with which a peer answers that does not have a kind, or does not give it to this node.
_NOT_SHARED = (*ABSENT, 401, 403)


def read_digest_for_deletions(client: PeerClient, peer: Peer, kind: Kind) -> Digest:
    """Read the peer's digest of a kind (SData sync 5.1, network), and store it for the deletions that wait for it.

    A source may send a deletion without its digests of the referring kinds. Such a deletion waits until those digests
    were read: see ``sync.content.conditions``.

    Raises:
        PeerError: the peer cannot be reached, refuses the request, or its answer cannot be read.
    """
    using, kind_name = kind.database, kind.name
    conditions = unanswered_conditions(peer.endpoint(kind_name), kind_name, using)
    try:
        shown = client.read_digest(kind_name)
    except PeerRefused as refusal:
        if conditions and refusal.status in _NOT_SHARED:
            answer_conditions(conditions, kind_name, Digest(), using)
            retry_others(kind)
        raise
    note_digest(peer, kind_name, shown)
    if conditions:
        answer_conditions(conditions, kind_name, shown, using)
        retry_others(kind)
    return shown


class Reporter:
    """Posts the result feeds of one run, until the source refuses one."""

    def __init__(self, client: PeerClient, kind: str, label: RunLabel) -> None:
        self._client, self._kind, self._label = client, kind, label
        self._is_wanted = True

    def report(self, results: bytes | None) -> None:
        """Post one result feed; do nothing if ``results`` is ``None`` or the source has refused a feed before.

        Raises:
            PeerError: the source cannot be reached.
        """
        if results is None or not self._is_wanted:
            return
        try:
            self._client.post_results(self._kind, results, run=self._label)
        except PeerRefused as refusal:
            # Some peers have no $syncResults, and a login that may read may not be allowed to report: the pull goes on.
            self._is_wanted = False
            level = logging.DEBUG if refusal.status in ABSENT else logging.WARNING
            logger.log(level, "%s: no more results of this run are reported: %s", self._kind, refusal)


def read_full_feed(client: PeerClient, peer: Peer, kind: Kind) -> Iterator[list[Entry]]:
    """Yield all entries of a kind at ``peer``, tombstones included, page by page (network).

    Raises:
        PeerError: the peer cannot be reached, refuses the request, or its answer cannot be read.
    """
    run = new_run(peer.url, conf.base_url)
    nothing = Digest(origin=kind.endpoint)
    feed = client.open_source(kind.name, nothing, run=run, tracking_id=str(uuid4()), count=conf.catch_up_page_size)
    with closing(feed), closing(feed.pages()) as pages:
        for page in pages:
            try:
                reader = read_sync_feed(page.body)
                entries = list(reader.entries())
            except (DocumentError, FeedError) as error:
                raise PeerMisbehaved(f"A page of {peer}: {error}") from error
            yield entries
            page.finish(len(entries), reader.next_url)


def pull(
    client: PeerClient,
    peer: Peer,
    kind: Kind,
    progress: Progress,
    *,
    known: Digest | None = None,
    in_a_hurry: bool = False,
    before_applying: Callable[[], None] = lambda: None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> int:
    """Apply all changes of a kind that ``peer`` has and this node lacks.

    Changes of this node that have no tick yet get one when the feed is applied, not before the peer has answered:
    this node may have been restored from a backup.

    Args:
        known: the digest that is sent to the peer; by default the digest of this node.
        in_a_hurry: ask for an answer in one request, because few changes are expected.
        before_applying: called when the peer has selected its changes. Whatever these refer to was committed before.
        is_interrupted: called between two pages; True stops the pull.

    Returns:
        The number of versions that the peer leaves out because they are larger than ``MAX_BODY_BYTES`` of this node.

    Raises:
        DeliveryInterrupted: ``is_interrupted`` returned True; the next pull continues after the last page.
        PeerError: the peer cannot be reached, refuses the request, or its answer cannot be read.
    """
    if known is None:
        stored = load_digest(kind)
        known = stored.shown_to(peer.endpoint(kind.name), stored.value)
    pulled = _Pull(client, peer, kind, progress, is_interrupted)
    pulled.run(known, in_a_hurry=in_a_hurry, before_applying=before_applying)
    return pulled.left_out


def pull_in_turn(
    client: PeerClient,
    peer: Peer,
    kind: Kind,
    ahead: Sequence[Kind],
    is_interrupted: Callable[[], bool],
    *,
    in_a_hurry: bool = False,
) -> None:
    """Pull a kind; before its changes are applied, pull the kinds ``ahead`` that it refers to.

    The peer may have committed a referenced row together with the row that refers to it, after the digest of the
    referenced kind was compared last.

    Raises:
        DeliveryInterrupted: ``is_interrupted`` returned True; the next pull continues after the last page.
        PeerError: the peer cannot be reached, refuses the request, or its answer cannot be read.
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
            # The failure is stored when that kind is compared itself. Rows that refer to missing rows are deferred.
            facts = {"peer": peer.name, "kind": nearest.name}
            logger.info("%s cannot go ahead of %s: %s", nearest.name, kind.name, error, extra=facts)

    pull(
        client,
        peer,
        kind,
        Progress(),
        in_a_hurry=in_a_hurry,
        before_applying=pull_ahead,
        is_interrupted=is_interrupted,
    )


class _Pull:
    def __init__(
        self,
        client: PeerClient,
        peer: Peer,
        kind: Kind,
        progress: Progress,
        is_interrupted: Callable[[], bool],
    ) -> None:
        self._client = client
        self._sender = Sender.of_peer(peer)
        self._is_interrupted = is_interrupted
        self._kind = kind
        self._progress = progress
        self.left_out = 0
        self._label = new_run(peer.url, conf.base_url)
        self._reporter = Reporter(client, kind.name, self._label)

    def run(self, known: Digest, *, in_a_hurry: bool, before_applying: Callable[[], None]) -> None:
        with closing(self._open(known, in_a_hurry=in_a_hurry)) as feed:
            before_applying()
            self._read(feed)
        retry_waiting(self._kind)

    def _open(self, known: Digest, *, in_a_hurry: bool) -> RemoteFeed:
        kind, count = self._kind.name, conf.catch_up_page_size
        if in_a_hurry:
            try:
                return self._client.open_source(kind, known, run=self._label, tracking_id="", count=count)
            except (PeerUnreachable, PeerRefused) as error:
                # The selection takes longer than one request may, or the peer answers asynchronous calls only.
                logger.info("%s: %s; asked again, asynchronously", kind, error)
        return self._client.open_source(kind, known, run=self._label, tracking_id=str(uuid4()), count=count)

    def _read(self, feed: RemoteFeed) -> None:
        report: bytes | None = None
        with closing(feed.pages()) as pages:
            for page in pages:
                header = self._header(page.body)
                self.left_out = header.left_out
                if self._progress.total is None:
                    self._progress.set_total(header.total)
                receipt = self._apply(page, header.next_url, report)
                page.finish(len(receipt.results), receipt.next_url)
                report = render_results(self._kind, receipt.results, receipt.digest) if receipt.results else None
                self._progress.count(len(receipt.results), [r.status for r in receipt.results if r.status != 200])
                if page.following is not None and self._is_interrupted():
                    self._reporter.report(report)
                    raise DeliveryInterrupted("The pull was stopped between two pages; the next pull continues here.")
        self._reporter.report(report)

    def _apply(self, page: RemotePage, next_url: str, report: bytes | None) -> Receipt:
        """Apply a page; at the same time report the results of the page before it and receive the page after it."""

        def exchange() -> None:
            self._reporter.report(report)
            page.fetch_next(next_url)

        def apply() -> Receipt:
            try:
                return receive_feed(self._kind, page.body, self._sender)
            except (DocumentError, FeedError) as error:
                raise PeerMisbehaved(f"A page of {self._client.url}/{self._kind.name}: {error}") from error

        _, receipt = overlap(exchange, apply)
        return receipt

    def _header(self, body: BinaryIO) -> FeedHeader:
        try:
            header = read_sync_feed(body).header
        except (DocumentError, FeedError) as error:
            raise PeerMisbehaved(f"A page of {self._client.url}/{self._kind.name}: {error}") from error
        body.seek(0)
        return header
