"""The engine: brings peers level in both directions, kind by kind (SData sync 3.1, 5).

It lives in this node, and then this side is no HTTP; or it carries feeds between two endpoints that are both
elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from ..atom.feed import read_sync_feed
from ..conf import conf
from ..core.selection import missing_ranges
from ..exceptions import DocumentError, FeedError, PeerError, PeerMisbehaved
from ..sync.db.faults import is_lost_connection
from ..sync.log.digests import load_digest
from ..sync.runs import RunLabel, new_run
from ..sync.select.oversize import held_names
from ..tracing import span
from .client import PeerClient, RemoteFeed, read_answer
from .progress import Watch
from .pull import Reporter, pull, read_digest_for_deletions
from .push import refuse_ourselves
from .session import Courier
from .threads.overlap import meanwhile

if TYPE_CHECKING:
    from ..kind import Kind
    from ..models import Peer

logger = logging.getLogger(__name__)

#: Rows that a message names.
NAMED = 3

#: Makes what watches one kind in one direction: peer, kind, direction.
MakeWatch = Callable[[str, str, str], Watch]


@dataclass(frozen=True, kw_only=True)
class Passed:
    """What one direction of one kind came to; ``error`` is empty if all arrived."""

    peer: str
    kind: str
    direction: str
    seconds: float
    watch: Watch
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        who = {"peer": self.peer, "kind": self.kind, "direction": self.direction}
        return {**who, **self.watch.as_dict(), "seconds": round(self.seconds, 3), "error": self.error}


def catch_up(
    peers: Iterable[Peer], resources: Iterable[Kind], *, directions: Iterable[str], make_watch: MakeWatch
) -> Iterator[Passed]:
    """Bring ``peers`` level in ``resources``, and yield what each direction of each came to.

    Pulled first: what is known of the peer's changes need not be pushed at it. What goes wrong with one does not
    keep the others.
    """
    resources, directions = list(resources), list(directions)
    for peer in peers:
        with Courier(peer) as courier:
            for resource in resources:
                for direction in ("pull", "push"):
                    if direction in directions and (resource.is_target if direction == "pull" else resource.is_source):
                        watch = make_watch(peer.name, resource.kind, direction)
                        act = _pull if direction == "pull" else _push
                        yield _attempt(peer.name, resource.kind, direction, watch, lambda w: act(courier, resource, w))  # noqa: B023


def _pull(courier: Courier, resource: Kind, watch: Watch) -> None:
    shown = read_digest_for_deletions(courier.client(), courier.peer, resource)
    refuse_ourselves(resource, shown)
    # Even where nothing is missing the peer is asked: there may be rows that it tracks only when somebody wants them.
    missing = missing_ranges(shown, load_digest(resource).value)
    is_little = sum(lacking.end - lacking.start for lacking in missing) < conf.catch_up_page_size
    left_out = pull(courier.client(), courier.peer, resource, watch, in_a_hurry=is_little)
    if left_out:
        raise PeerError(
            f"All but {left_out} arrived: {courier.peer} leaves out what is larger than this node accepts, and "
            f"names it in its sync_status. MAX_BODY_BYTES is {conf.max_body_bytes} here."
        )


def _push(courier: Courier, resource: Kind, watch: Watch) -> None:
    courier.catch_up(resource, watch)
    held = held_names(resource).get(courier.peer.pk, [])
    if held:
        raise PeerError(
            f"All but {len(held)} arrived: {', '.join(held[:NAMED])} cannot be taken by {courier.peer}, which accepts "
            "no feeds of that size. Let it accept larger ones (MAX_BODY_BYTES, or the limit of its proxy)."
        )


def _attempt(peer: str, kind: str, direction: str, watch: Watch, act: Callable[[Watch], None]) -> Passed:
    started = time.monotonic()
    error = ""
    try:
        with span("catch_up", peer=peer, kind=kind, direction=direction):
            act(watch)
    except PeerError as raised:
        error = str(raised)
    except Exception as raised:
        if is_lost_connection(raised):
            raise
        logger.exception("%s %s %s failed unexpectedly", kind, direction, peer)
        error = f"{type(raised).__name__}: {raised}"
    passed = Passed(
        peer=peer, kind=kind, direction=direction, seconds=time.monotonic() - started, watch=watch, error=error
    )
    logger.info("%s %s %s: %s", kind, direction, peer, error or "level", extra=passed.as_dict())
    return passed


def carry(source: PeerClient, target: PeerClient, kind: str, watch: Watch) -> Passed:
    """Carry the changes of ``kind`` from one endpoint to another, neither of them ours."""
    carrier = _Carrier(source, target, kind)
    return _attempt(source.url, kind, f"to {target.url}", watch, carrier.run)


class _Carrier:
    def __init__(self, source: PeerClient, target: PeerClient, kind: str) -> None:
        self._source, self._target, self._kind = source, target, kind
        self._label: RunLabel = new_run(source.url, target.url)
        self._reporter = Reporter(source, kind, self._label)

    def run(self, watch: Watch) -> None:
        self._watch = watch
        digest = self._target.read_digest(self._kind)
        feed = self._source.open_source(
            self._kind, digest, run=self._label, tracking_id=str(uuid4()), count=conf.catch_up_page_size
        )
        try:
            page: BinaryIO | None = feed.first
            while page is not None:
                page = self._carry_page(feed, page)
        finally:
            feed.close()

    def _carry_page(self, feed: RemoteFeed, page: BinaryIO) -> BinaryIO | None:
        with page:
            content = page.read()
            page.seek(0)
            next_url, entries = self._look_through(page)
        feed.saw(entries)
        answer, following = meanwhile(
            lambda: self._target.post_feed(self._kind, content, run=self._label),
            lambda: feed.following(next_url) if next_url else None,
        )
        with answer:
            exceptions = read_answer(answer, self._target.url, with_results=True).exceptions
            self._watch.see(entries, [result.status for result in exceptions])
            answer.seek(0)
            self._reporter.report(answer.read())
        return following

    def _look_through(self, page: BinaryIO) -> tuple[str, int]:
        try:
            reader = read_sync_feed(page)
            if self._watch.total is None:
                self._watch.begin(reader.header.total)
            entries = sum(1 for _ in reader.entries())
        except (DocumentError, FeedError) as error:
            raise PeerMisbehaved(f"A page of {self._source.url}/{self._kind}: {error}") from error
        return reader.next_url, entries
