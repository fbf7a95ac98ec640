"""Receiving a posted feed: read, checked and applied in one transaction, or refused whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO
from uuid import UUID

from django.db import transaction

from ..atom.entry import Entry, Result
from ..atom.feed import SyncMode, read_sync_feed
from ..core.digest import Digest
from ..core.order import TickOrder
from ..core.state import same_endpoint
from ..exceptions import FeedRefused
from ..resources import SyncResource
from ..tracing import span
from .applying import Applier
from .counting import count_received
from .deferring import settle, settle_others
from .digests import StoredDigest, lock_digest
from .hearing import may_number
from .isolation import atomically_by_row
from .numbering import number_all_under_lock
from .parts import note_part, refuse_part
from .rejoining import Behind, behind, check_leap, fall_behind
from .scopes import remember
from .wakeup import wake_after_commit

#: Entries that are decided and written together.
BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What became of a page: a result for each entry, in their order, and our digest afterwards.

    ``source`` is the digest that the page came with, ``next_url`` where the page after it is, if there is one.
    """

    results: list[Result]
    digest: Digest
    source: Digest
    next_url: str


def receive_feed(resource: SyncResource, file: BinaryIO) -> Receipt:
    """Apply one page of a sync feed (SData sync 5.3 to 5.5, 5.8).

    Data, states and digest move together or not at all; the same page posted again changes nothing.

    Raises:
        DocumentError, FeedError: nothing of the feed is applied.
    """
    reader = read_sync_feed(file)
    assert reader.header.digest is not None
    _refuse_ourselves(resource, reader.header.digest)
    numbers = may_number(resource)
    with span("apply_page", kind=resource.kind, source=reader.header.digest.origin):
        return atomically_by_row(resource.database, partial(_receive, resource, file, numbers=numbers))


def _receive(resource: SyncResource, file: BinaryIO, *, numbers: bool) -> Receipt:
    file.seek(0)  # perhaps not for the first time
    reader = read_sync_feed(file)
    source, mode = reader.header.digest, reader.header.sync_mode
    assert source is not None
    stored = lock_digest(resource)
    ours = stored.value
    refuse_part(resource, ours, source)
    noted = _is_behind_itself(resource, stored, source, mode)
    if numbers and noted is None:
        number_all_under_lock(resource, stored)
    applier = Applier(resource, stored, source, behind=noted, referrers=reader.header.referrers)
    order = TickOrder(stored.value, contiguous=mode is SyncMode.IMMEDIATE)
    # Where two may be one thing, the second must be seen by the first.
    size = 1 if resource.may_find_duplicates else BATCH
    for batch in _batches(_checked(reader.entries(), order), size):
        applier.apply(batch)
    # Only now: the link to a next page may stand behind the entries.
    is_end = mode is SyncMode.CATCH_UP and not reader.next_url
    if is_end and noted is not None and source.tick(resource.endpoint) >= noted.until:
        applier.rejoin()
    digest = applier.finish(merge=is_end)
    count_received(resource, applier.results, conflicts=applier.conflicts)
    note_part(resource, ours, source)
    remember(resource, source.origin, [result.uuid for result in applier.results])
    if applier.has_written or not digest.level_with(ours):
        settle(resource)
        transaction.on_commit(partial(settle_others, resource), using=resource.database, robust=True)
    if applier.has_written or applier.has_recorded:
        wake_after_commit(resource.kind, resource.database, is_own=applier.has_recorded)
    return Receipt(results=applier.results, digest=digest, source=source, next_url=reader.next_url)


def _is_behind_itself(
    resource: SyncResource, stored: StoredDigest, source: Digest, mode: SyncMode | None
) -> Behind | None:
    """Return whether the source, or somebody before, knows ticks of ours that we do not: we were restored.

    What we recorded under them and lost comes back with a catch-up feed, so nothing is numbered before its end;
    an immediate feed is refused, which makes its sender catch us up.

    Raises:
        FeedRefused
    """
    ours, theirs = stored.value.tick(resource.endpoint), source.tick(resource.endpoint)
    if theirs <= ours:
        return behind(resource)
    check_leap(resource, ours, theirs)
    if mode is SyncMode.IMMEDIATE:
        raise FeedRefused(
            f"The source knows {resource.endpoint} up to tick {theirs}, which stands at {ours}: it was restored from "
            "a backup. Expected a catchUp feed, received an immediate one.",
            application_code="Restored",
            payload_path="feed/digest",
        )
    return fall_behind(resource, stored)


def _refuse_ourselves(resource: SyncResource, source: Digest) -> None:
    if source.origin and same_endpoint(source.origin, resource.endpoint):
        raise FeedRefused(
            f"The feed says that it comes from {source.origin}, and so are we called; two nodes must not have one "
            "BASE_URL.",
            application_code="SameEndpoint",
            payload_path="feed/digest/origin",
        )


def _checked(entries: Iterable[Entry], order: TickOrder) -> Iterator[Entry]:
    for number, entry in enumerate(entries, start=1):
        error = order.check(entry.state)
        if error is not None:
            raise FeedRefused(
                str(error), application_code=error.fault, payload_path=f"feed/entry[{number}]/syncState/tick"
            )
        yield entry


def _batches(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """Group ``entries`` by ``size``; two of one resource are never together: the second is decided by the first.

    One that gives a resource another uuid stands alone: what comes before it may have done so already, and what comes
    after it may be of the row that it renames.
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
