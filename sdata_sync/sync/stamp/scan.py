"""Find rows that no signal reported: rows from before the app was installed, raw SQL, ``update()``, restored tables."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from ...models import Digest as DigestRow
from ...models import TrackedResource
from ..content.contents import read_contents
from ..content.upgrade import adopt_known_elements
from ..db.isolation import atomically_by_row
from ..log.digests import lock_digest
from ..log.marks import new_uuid
from ..log.tracked import mark_found, new_tracked, untracked_keys, without_tracked
from ..log.wakeup import wake_after_commit
from .restore_gap import is_checked, restore_gap, wait_until_checked
from .stamper import BATCH, assign_ticks, stamp_new_rows

if TYPE_CHECKING:
    from ...kind import Kind


def is_complete(kind: Kind) -> bool:
    """Return True if ``track_existing`` has tracked all rows of ``kind``; it does that only once."""
    return DigestRow.objects.using(kind.database).filter(pk=kind.name, is_complete=True).exists()


def track_existing(kind: Kind, *, on_batch: Callable[[int], None] = lambda count: None) -> int:
    """Track every untracked row and assign its tick, if that was never done; return the number of these rows.

    Nothing is done before the restore check, or while there is a restore gap. Each batch is a transaction, and rows
    that are tracked already are skipped the next time, so an interruption costs nothing. After each batch ``on_batch``
    is called with the number of rows in it.
    """
    if is_complete(kind):
        return 0
    if not is_checked(kind) or restore_gap(kind) is not None:
        return 0
    found = track_untracked(kind, on_batch=on_batch)
    DigestRow.objects.using(kind.database).update_or_create(pk=kind.name, defaults={"is_complete": True})
    return found


def track_untracked(kind: Kind, *, on_batch: Callable[[int], None] = lambda count: None) -> int:
    """Track and number every row that is not tracked, and return how many there were."""
    if not is_checked(kind) or restore_gap(kind) is not None:
        return 0
    return sum(_track(kind, keys) for keys in untracked_keys(kind, on_batch=on_batch))


def count_untracked(kind: Kind, *, on_batch: Callable[[int], None] = lambda count: None) -> int:
    """Return the number of untracked rows."""
    return sum(len(keys) for keys in untracked_keys(kind, on_batch=on_batch))


def _track(kind: Kind, keys: list[str]) -> int:
    if not keys:
        return 0
    return atomically_by_row(kind.database, partial(_track_under_lock, kind, keys))


def _track_under_lock(kind: Kind, keys: list[str]) -> int:
    stored = lock_digest(kind)
    new = []
    for key in without_tracked(kind, keys):  # checked again, under the lock
        row = new_tracked(kind.name, new_uuid())
        row.local_key = key
        new.append(row)
    stamp_new_rows(kind, stored, new)
    return len(new)


logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Found:
    """Count the rows that differ from what is tracked."""

    looked_at: int = 0
    new: int = 0
    changed: int = 0
    deleted: int = 0
    #: Rows that raise when they are read or encoded. Whether they were changed is not known; they are held back.
    unreadable: int = 0

    @property
    def total(self) -> int:
        """Return the number of rows that differ or cannot be read."""
        return self.new + self.changed + self.deleted + self.unreadable

    def as_dict(self) -> dict[str, int]:
        """Return the counts, for JSON; ``unreadable`` only if it is not 0."""
        return {name: number for name, number in asdict(self).items() if number or name != "unreadable"}


def scan(kind: Kind, *, dry_run: bool = False, on_batch: Callable[[int], None] = lambda count: None) -> Found:
    """Compare every row with what is tracked, in chunks, and assign ticks to the differences; return their counts.

    With ``dry_run`` the differences are only counted. After each chunk ``on_batch`` is called with the number of rows
    in it. The first scan of a process reads the digests of the peers before (network). While a peer has changes that
    this node lost in a restore, differences are counted and marked, but no tick is assigned and no row is tracked.
    """
    found = Found()
    if not dry_run:
        adopt_known_elements(kind)
        if not wait_until_checked(kind):
            logger.warning("%s: no ticks are assigned until lost changes were pulled; see sync_rejoin", kind.name)
    last = 0
    rows = TrackedResource.objects.using(kind.database).filter(
        # Linked rows that wait for the version of a peer have no tick, and are left out.
        kind=kind.name,
        local_key__isnull=False,
        mark__isnull=True,
        tick__isnull=False,
    )
    while chunk := list(rows.filter(pk__gt=last).order_by("pk")[:BATCH]):
        _compare(kind, chunk, found, dry_run=dry_run)
        last = chunk[-1].pk
        on_batch(len(chunk))
    find_new = count_untracked if dry_run or not is_checked(kind) else track_untracked
    found.new = find_new(kind, on_batch=on_batch)
    if not dry_run:
        assign_ticks(kind)
        if found.total:
            wake_after_commit(kind.name, kind.database)
    return found


def _compare(kind: Kind, chunk: list[TrackedResource], found: Found, *, dry_run: bool) -> None:
    contents, problems = read_contents(kind, chunk, allocate=not dry_run)
    odd = []
    for tracked in chunk:
        texts = contents.get(tracked.row_key)
        if (problem := problems.get(tracked.row_key)) is not None:
            logger.error("%s('%s') cannot be read or encoded: %s", kind.endpoint, tracked.local_key, problem)
            found.unreadable += 1
        elif texts is None:
            # A deferred version may have a local key although the row does not exist.
            if tracked.is_deferred:
                continue
            found.deleted += 1
        elif tracked.is_deferred or kind.etag(texts, tracked.extra) == tracked.etag:
            continue
        else:
            found.changed += 1
        odd.append(tracked.pk)
    found.looked_at += len(chunk)
    if not dry_run:
        mark_found(kind.database, odd)
