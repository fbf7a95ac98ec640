"""Catch up with peers in both directions, kind by kind (SData sync 3.1, 5).

``catch_up`` exchanges changes between this node and its peers. ``bridge`` passes the changes of one endpoint on to
another where both belong to other nodes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from ..atom.feed import read_sync_feed
from ..conf import conf
from ..core.ranges import missing_ranges
from ..exceptions import DocumentError, FeedError, KindNotShared, PeerError, PeerMisbehaved
from ..models import TrackedResource
from ..registry import registry
from ..sync.db.faults import is_lost_connection
from ..sync.log.digests import load_digest
from ..sync.runs import RunLabel, new_run
from ..sync.select.oversize import oversize_names
from ..tracing import span
from .client import PeerClient, RemotePage, read_answer
from .lease import ensure_stream, was_shared
from .probe import has_no_kind, schema_differences
from .progress import Progress
from .pull import Reporter, pull, read_digest_for_deletions
from .push import check_peer_digest
from .session import PeerSession
from .threads.overlap import overlap
from .waiting import just_told, note_digest, waiting_here, waiting_there

if TYPE_CHECKING:
    from ..kind import Kind
    from ..models import Peer

logger = logging.getLogger(__name__)

#: The number of rows that a message names.
NAMED = 3

#: The URLs of peers, and the kinds, whose differing properties this process has logged.
told_differences: set[tuple[str, str]] = set()

#: Makes the progress of one kind in one direction; its arguments are the names of peer, kind and direction.
MakeProgress = Callable[[str, str, str], Progress]


@dataclass(frozen=True)
class Passed:
    """The outcome of one direction of one kind.

    ``error`` is empty if all changes arrived. ``waiting`` says which entries wait although they arrived: deferred here
    after a pull, deferred or refused there or held back here after a push. ``is_shared`` is False if the peer does not
    have the kind.
    """

    peer: str
    kind: str
    direction: str
    seconds: float
    progress: Progress
    error: str = ""
    waiting: str = ""
    is_shared: bool = True

    @property
    def is_in_sync(self) -> bool:
        """Whether all changes arrived and nothing waits, or the peer does not have the kind."""
        return not (self.error or self.waiting)

    @property
    def outcome(self) -> str:
        """The outcome as a text."""
        if not (self.error or self.is_shared):
            return f"not shared with {self.peer}"
        return self.error or (f"in sync, but {self.waiting}" if self.waiting else "in sync")

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain values for JSON."""
        who = {"peer": self.peer, "kind": self.kind, "direction": self.direction}
        return {
            **who,
            **self.progress.as_dict(),
            "seconds": round(self.seconds, 3),
            "error": self.error,
            "waiting": self.waiting,
            "shared": self.is_shared,
        }


def catch_up(
    peers: Iterable[Peer], resources: Iterable[Kind], *, directions: Iterable[str], make_progress: MakeProgress
) -> Iterator[Passed]:
    """Exchange all missing changes with ``peers``; yield the outcome of each direction of each kind.

    The pull is first, so that changes of the peer itself are not pushed back. An error with one peer or kind is in
    its outcome, and the catch-up goes on with the next one. After the last kind of a peer it is looked up what waits
    here and there, because an entry may have waited for a row of a later kind.
    """
    resources, directions = list(resources), list(directions)
    for peer in peers:
        outcomes: list[tuple[Kind, Passed]] = []
        with PeerSession(peer) as session:
            for kind in resources:
                for direction in ("pull", "push"):
                    if direction in directions and (kind.is_target if direction == "pull" else kind.is_source):
                        progress = make_progress(peer.name, kind.name, direction)
                        act = partial(_pull if direction == "pull" else _push, session, kind)
                        before = ensure_stream(peer, kind.name)
                        passed = _attempt(peer.name, kind.name, direction, progress, act)
                        if not passed.is_shared and not was_shared(before):
                            passed = replace(passed, error="")
                        outcomes.append((kind, passed))
            _tell_differences(session, [kind for kind, passed in outcomes if passed.is_shared and not passed.error])
            has_none = len(resources) == len(list(registry)) and not any(passed.is_shared for _, passed in outcomes)
            for kind, passed in outcomes:
                if passed.is_shared and not passed.error:
                    yield _logged(replace(passed, waiting=_waits(session, kind, passed)))
                else:
                    yield _logged(replace(passed, error=passed.error or (has_no_kind(peer) if has_none else "")))
            started = time.monotonic()
            for name, said in session.run_errands().items():
                seconds = time.monotonic() - started
                yield _logged(Passed(peer.name, name, "pull", seconds=seconds, progress=Progress(), waiting=said))


def _tell_differences(session: PeerSession, kinds: Iterable[Kind]) -> None:
    """Log which properties only one side has (network): once per process for each peer and kind."""
    peer = session.peer
    untold = [kind for kind in dict.fromkeys(kinds) if (peer.url, kind.name) not in told_differences]
    told_differences.update((peer.url, kind.name) for kind in untold)
    if untold:
        with suppress(PeerError):  # what cannot be asked differs for another reason, which has been said
            for difference in schema_differences(session.client(), peer, untold):
                logger.warning("%s", difference)


def _waits(session: PeerSession, kind: Kind, passed: Passed) -> str:
    """Return what waits although all changes have arrived, for the direction of ``passed``; empty if nothing does."""
    if passed.direction == "pull":
        here = waiting_here(kind)
        return "" if here is None else str(here)
    stream = ensure_stream(session.peer, kind.name)
    unsent = TrackedResource.objects.using(kind.database).filter(kind=kind.name, mark__isnull=False)
    problems = list(unsent.exclude(problem="").values_list("local_key", "problem")[:NAMED])
    if problems:
        named = "; ".join(f"{kind.name}({key!r}): {problem}" for key, problem in problems)
        return f"rows of this node cannot be sent: {named}"
    if not stream.waiting:
        return ""
    try:
        shown = session.client().read_digest(kind.name)
    except PeerError as error:
        return f"{waiting_there(kind, stream)}, and its digest cannot be read: {error}"
    note_digest(session.peer, kind.name, shown)
    stream.refresh_from_db()
    there = waiting_there(kind, stream)
    return "" if there is None else str(there if shown.waiting is None else just_told(there))


def _logged(passed: Passed) -> Passed:
    logger.info("%s, %s, %s: %s", passed.kind, passed.direction, passed.peer, passed.outcome, extra=passed.as_dict())
    return passed


def _pull(session: PeerSession, kind: Kind, progress: Progress) -> None:
    shown = read_digest_for_deletions(session.client(), session.peer, kind)
    check_peer_digest(kind, shown)
    # The feed is requested even if the digests agree: a source may assign ticks only when its feed is requested.
    missing = missing_ranges(shown, load_digest(kind).value)
    is_little = sum(lacking.end - lacking.start for lacking in missing) < conf.catch_up_page_size
    left_out = pull(session.client(), session.peer, kind, progress, in_a_hurry=is_little)
    if left_out:
        raise PeerError(
            f"All versions but {left_out} arrived. {session.peer} left them out: they are larger than this node "
            f"accepts (MAX_BODY_BYTES is {conf.max_body_bytes}). Its sync_status names them. Raise MAX_BODY_BYTES at "
            "this node, or make the rows smaller."
        )


def _push(session: PeerSession, kind: Kind, progress: Progress) -> None:
    session.catch_up(kind, progress)
    held = oversize_names(kind).get(session.peer.pk, [])
    if held:
        raise PeerError(
            f"All versions but {len(held)} arrived. {', '.join(held[:NAMED])}: larger than {session.peer} accepts. "
            "Raise MAX_BODY_BYTES at the peer or the limit of its proxy, or make the rows smaller."
        )


def _attempt(peer: str, kind: str, direction: str, progress: Progress, act: Callable[[Progress], None]) -> Passed:
    started = time.monotonic()
    error, is_shared = "", True
    try:
        with span("catch_up", peer=peer, kind=kind, direction=direction):
            act(progress)
    except KindNotShared as raised:
        is_shared, error = False, str(raised)
    except PeerError as raised:
        error = str(raised)
    except Exception as raised:
        if is_lost_connection(raised):
            raise
        logger.exception("%s, %s, %s: the catch-up failed with an unexpected exception", kind, direction, peer)
        error = f"{type(raised).__name__}: {raised}"
    return Passed(
        peer=peer,
        kind=kind,
        direction=direction,
        seconds=time.monotonic() - started,
        progress=progress,
        error=error,
        is_shared=is_shared,
    )


def bridge(source: PeerClient, target: PeerClient, kind: str, progress: Progress) -> Passed:
    """Pass the changes of ``kind`` from one endpoint to another; both belong to other nodes (network)."""
    return _logged(_attempt(source.url, kind, f"to {target.url}", progress, _Bridge(source, target, kind).run))


class _Bridge:
    def __init__(self, source: PeerClient, target: PeerClient, kind: str) -> None:
        self._source, self._target, self._kind = source, target, kind
        self._label: RunLabel = new_run(source.url, target.url)
        self._reporter = Reporter(source, kind, self._label)

    def run(self, progress: Progress) -> None:
        digest = self._target.read_digest(self._kind)
        feed = self._source.open_source(
            self._kind, digest, run=self._label, tracking_id=str(uuid4()), count=conf.catch_up_page_size
        )
        with closing(feed), closing(feed.pages()) as pages:
            for page in pages:
                self._pass_on(page, progress)

    def _pass_on(self, page: RemotePage, progress: Progress) -> None:
        """Post one page to the target while the next one is received; report the target's results to the source."""
        content = page.body.read()
        page.body.seek(0)
        next_url, entries = self._read(page.body, progress)
        answer, _ = overlap(
            lambda: self._target.post_feed(self._kind, content, run=self._label),
            lambda: page.finish(entries, next_url),
        )
        with answer:
            exceptions = read_answer(answer, self._target.url).exceptions
            progress.count(entries, [result.status for result in exceptions])
            answer.seek(0)
            self._reporter.report(answer.read())

    def _read(self, body: BinaryIO, progress: Progress) -> tuple[str, int]:
        """Return the next link of a page and the number of its entries."""
        try:
            reader = read_sync_feed(body)
            if progress.total is None:
                progress.set_total(reader.header.total)
            entries = sum(1 for _ in reader.entries())
        except (DocumentError, FeedError) as error:
            raise PeerMisbehaved(f"A page of {self._source.url}/{self._kind}: {error}") from error
        return reader.next_url, entries
