"""Receive a posted feed: read, check and apply it in one transaction, or refuse it whole (SData sync 5.3 to 5.5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet

from ...atom.feed import SyncMode, read_sync_feed
from ...conf import conf
from ...core.digest import Digest, DigestEntry
from ...core.order import TickOrder
from ...core.state import SyncState, same_endpoint
from ...exceptions import FeedRefused, SyncError
from ...models import Digest as DigestRow
from ...tracing import span
from ..bounds import Bounds, is_restore
from ..content.deferred import retry_deferred, retry_others
from ..db.isolation import atomically_by_row
from ..db.prepared import PreparedUpdate
from ..log.digests import StoredDigest, lock_digest
from ..log.suppression import receiving_from
from ..log.wakeup import wake_after_commit
from ..scope import check_partial_exchange, remember, update_partial
from ..stamp.restore_gap import ensure_checked, note_restore_gap, restore_gap
from ..stamp.stamper import assign_ticks_under_lock
from .applier import Applier
from .limits import check_room
from .results import UNCHANGED

if TYPE_CHECKING:
    from ...atom.entry import Entry, Result
    from ...kind import Kind
    from ...models import Peer
    from ..trust import Sender, Speaker

#: The outcomes of an entry.
OUTCOMES = ("applied", "ignored", "lost", "deferred")
_NAMES = (*OUTCOMES, "conflicts")
_STATUSES = {409: "lost", 202: "deferred"}


def _counting(kind: str, *counts: int) -> tuple[QuerySet[DigestRow], dict[str, Any]]:
    return DigestRow.objects.filter(pk=kind), {
        name: F(name) + count for name, count in zip(_NAMES, counts, strict=True)
    }


_count = PreparedUpdate(_counting, str, *[int] * len(_NAMES))


def count_received(kind: Kind, results: Iterable[Result], *, conflicts: int) -> None:
    """Add ``results`` to the counters of the kind; the caller holds the lock of its digest."""
    counts = Counter(_outcome(result) for result in results)
    if counts:
        counts["conflicts"] = conflicts
        _count.execute(kind.database, kind.name, *(counts[name] for name in _NAMES))


def _outcome(result: Result) -> str:
    return _STATUSES.get(result.status) or ("ignored" if result.message == UNCHANGED else "applied")


#: The maximum number of entries that are decided and written together.
BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """Hold the results of the entries of a page, in their order, and the digest of this node afterwards.

    ``source`` is the believed part of the digest in the page. ``peer`` is the enabled peer that the page speaks for.
    ``next_url`` is the link to the next page, or empty.
    """

    results: list[Result]
    digest: Digest
    source: Digest
    peer: Peer | None
    next_url: str


def receive_feed(kind: Kind, file: BinaryIO, sender: Sender) -> Receipt:
    """Apply one page of a sync feed that ``sender`` delivers (SData sync 5.3 to 5.5, 5.8).

    Data, states and digest are written in one transaction. The same page posted again changes nothing. The first page
    of a process reads the digests of the peers before (network).

    Raises:
        NotTrusted: the sender may not speak for the origin of the page; nothing of it is applied.
        DocumentError, FeedError: the page cannot be read or is refused; nothing of it is applied.
    """
    reader = read_sync_feed(file)
    assert reader.header.digest is not None
    _refuse_ourselves(kind, reader.header.digest)
    speaker = sender.speaker(kind, reader.header.digest.origin)
    assigns_ticks = ensure_checked(kind)
    act = partial(_receive, kind, file, speaker, assigns_ticks=assigns_ticks)
    with span("apply_page", kind=kind.name, source=speaker.origin), receiving_from(speaker.origin, speaker.sender):
        try:
            return atomically_by_row(kind.database, act)
        except _OwnTickShown as shown:
            # An entry has a tick of this node that is above the tick in the feed's digest: this node was restored.
            claimed = _highest_own_tick(kind, file, shown.limit) + 1
            return atomically_by_row(kind.database, partial(act, claimed=claimed))


class _OwnTickShown(SyncError):
    """An entry has a tick of this node that the node has not recorded, and the claim is believed."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        #: The first tick that is not believed.
        self.limit = limit


def _highest_own_tick(kind: Kind, file: BinaryIO, limit: int) -> int:
    file.seek(0)
    states = (entry.state for entry in read_sync_feed(file).entries())
    return max(s.tick for s in states if same_endpoint(s.endpoint, kind.endpoint) and s.tick < limit)


def _receive(kind: Kind, file: BinaryIO, speaker: Speaker, *, assigns_ticks: bool, claimed: int = 0) -> Receipt:
    file.seek(0)  # a repeated transaction reads the feed again
    reader = read_sync_feed(file)
    mode = reader.header.sync_mode
    assert reader.header.digest is not None
    source = reader.header.digest.with_origin(speaker.origin)
    stored = lock_digest(kind)
    ours = stored.value
    check_partial_exchange(kind, ours, source)
    speaker.filters_us(source)  # refuses the page if that is not agreed
    if claimed:  # replaces the digest's tick of this node, which is too low or too high to be believed
        source = source.with_entry(DigestEntry(endpoint=kind.endpoint, tick=claimed))
    restores = _check_restore(kind, ours.tick(kind.endpoint), source, mode, speaker)
    noted = note_restore_gap(kind, stored) if restores else restore_gap(kind)
    bounds = Bounds(kind, stored, source, restores=restores, speaker=speaker)
    source = bounds.source
    if assigns_ticks and noted is None:
        assign_ticks_under_lock(kind, stored)
    applier = Applier(kind, stored, gap=noted, referrers=reader.header.referrers, bounds=bounds)
    check = _EntryCheck(kind, stored, source, mode, is_from_peer=speaker.peer is not None)
    # Where duplicates are possible, each entry must see the row of the one before.
    size = 1 if kind.may_find_duplicates else BATCH
    for batch in _batches(check.checked(reader.entries()), size):
        applier.apply(batch)
    # Read now: the link to the next page may follow the entries.
    is_end = mode is SyncMode.CATCH_UP and not reader.next_url
    if is_end and noted is not None and source.tick(kind.endpoint) >= noted.until:
        applier.rejoin()
    digest = applier.finish(merge=is_end and speaker.is_trusted)
    count_received(kind, applier.results, conflicts=applier.conflicts)
    if applier.conflicts or any(result.status in (202, 403) for result in applier.results):
        check_room(kind, speaker)
    update_partial(kind, ours, source, speaker)
    remember(kind, speaker.peer, [result.uuid for result in applier.results])
    if applier.has_written or not digest.in_sync_with(ours):
        retry_deferred(kind)
        transaction.on_commit(partial(retry_others, kind), using=kind.database, robust=True)
    if applier.has_written or applier.has_recorded:
        wake_after_commit(kind.name, kind.database, is_own=applier.has_recorded)
    return Receipt(
        results=applier.results,
        digest=stored.shown_to(speaker.origin, digest),
        source=source,
        peer=speaker.peer,
        next_url=reader.next_url,
    )


def _check_restore(kind: Kind, ours: int, source: Digest, mode: SyncMode | None, speaker: Speaker) -> bool:
    """Return True if the source has a higher tick of this node than the node itself and is believed: a restore.

    The lost changes come back with a catch-up feed, and no tick is assigned before its end. An immediate feed is
    refused, which makes its sender start a catch-up.

    Raises:
        FeedRefused: an immediate feed shows that this node was restored.
    """
    theirs = source.tick(kind.endpoint)
    if theirs <= ours:
        return False
    if mode is SyncMode.IMMEDIATE:
        _refuse_immediate(kind, ours, theirs, "feed/digest")
        return False
    return is_restore(ours, theirs, speaker)


def _refuse_immediate(kind: Kind, ours: int, theirs: int, path: str) -> None:
    if theirs - ours <= conf.max_tick_leap:
        raise FeedRefused(
            f"The source knows {kind.endpoint} up to tick {theirs}, but this node is at tick {ours}: it was "
            "restored from a backup. Expected a catchUp feed, received an immediate feed.",
            application_code="Restored",
            payload_path=path,
        )


def _refuse_ourselves(kind: Kind, source: Digest) -> None:
    if source.origin and same_endpoint(source.origin, kind.endpoint):
        raise FeedRefused(
            f"The feed names {source.origin} as its origin, which is the endpoint of this node. Two nodes have one "
            "BASE_URL; give each node its own.",
            application_code="SameEndpoint",
            payload_path="feed/digest/origin",
        )


class _EntryCheck:
    """Check the ticks of the entries of one page, in their order."""

    def __init__(
        self, kind: Kind, stored: StoredDigest, source: Digest, mode: SyncMode | None, *, is_from_peer: bool
    ) -> None:
        self._kind = kind
        self._stored = stored
        self._source = source
        self._is_from_peer = is_from_peer
        self._is_immediate = mode is SyncMode.IMMEDIATE
        self._send_operation = TickOrder(stored.value, contiguous=self._is_immediate)

    def checked(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield ``entries`` after checking the tick of each.

        Raises:
            FeedRefused: the ticks do not ascend, leave a gap, or show in an immediate feed that this node was restored.
            _OwnTickShown: the ticks show in a catch-up feed of an enabled peer that this node was restored.
        """
        for number, entry in enumerate(entries, start=1):
            path = f"feed/entry[{number}]/syncState/tick"
            if not self._is_of_ours_beyond(entry.state, path):
                error = self._send_operation.check(entry.state)
                if error is not None:
                    raise FeedRefused(str(error), application_code=error.fault, payload_path=path)
            yield entry

    def _is_of_ours_beyond(self, state: SyncState, path: str) -> bool:
        """Return True if an entry has a tick of this node that it has not recorded, and the claim is not believed."""
        own = self._kind.endpoint
        ours = self._stored.value.tick(own)
        if not same_endpoint(state.endpoint, own) or state.tick < max(ours, self._source.tick(own)):
            return False
        if self._is_immediate:
            _refuse_immediate(self._kind, ours, state.tick + 1, path)
        elif self._is_from_peer and state.tick < ours + conf.max_tick_leap:
            raise _OwnTickShown(ours + conf.max_tick_leap)
        return True


def _batches(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """Group ``entries`` in batches of ``size``, each entry of a batch of another resource.

    The second entry of a resource is decided against the outcome of the first. An entry that gives a resource another
    uuid is a batch of its own: an earlier entry may have done so already, and a later entry may be of the renamed row.
    """
    batch: list[Entry] = []
    uuids: set[UUID] = set()
    for entry in entries:
        is_alone = entry.replaced_by is not None
        if batch and (is_alone or len(batch) == size or entry.uuid in uuids):
            yield batch
            batch, uuids = [], set()
        if is_alone:
            yield [entry]
            continue
        batch.append(entry)
        uuids.add(entry.uuid)
    if batch:
        yield batch
