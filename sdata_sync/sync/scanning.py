"""Finding what came past the signals: raw SQL, ``update()``, restored tables, rows the database deleted by itself."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass

from ..models import TrackedResource
from ..resources import SyncResource
from .existing import count_untracked, track_untracked
from .log import mark_found
from .numbering import BATCH, number_changes
from .relations.contents import read_contents
from .relations.directory import only_looking
from .upgrading import take_over_known
from .wakeup import wake_after_commit

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Found:
    """How many rows are not as they were tracked."""

    looked_at: int = 0
    new: int = 0
    changed: int = 0
    deleted: int = 0
    #: Rows that raise when they are read or encoded. Whether they were changed is not known; they are held back.
    unreadable: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.new + self.changed + self.deleted + self.unreadable

    def as_dict(self) -> dict[str, int]:
        """Return the numbers, for JSON; ``unreadable`` only if there is any."""
        return {name: number for name, number in asdict(self).items() if number or name != "unreadable"}


def scan(
    resource: SyncResource, *, dry_run: bool = False, on_batch: Callable[[int], None] = lambda count: None
) -> Found:
    """Compare every row with what is tracked, in chunks, and number what differs; ``dry_run`` only counts."""
    found = Found()
    if not dry_run:
        take_over_known(resource)
    last = 0
    rows = TrackedResource.objects.using(resource.database).filter(
        # Not what is linked, and waits for the other side's version.
        kind=resource.kind,
        local_key__isnull=False,
        mark__isnull=True,
        tick__isnull=False,
    )
    while chunk := list(rows.filter(pk__gt=last).order_by("pk")[:BATCH]):
        _compare(resource, chunk, found, dry_run=dry_run)
        last = chunk[-1].pk
        on_batch(len(chunk))
    find_new = count_untracked if dry_run else track_untracked
    found.new = find_new(resource, on_batch=on_batch)
    if not dry_run:
        number_changes(resource)
        if found.total:
            wake_after_commit(resource.kind, resource.database)
    return found


def _compare(resource: SyncResource, chunk: list[TrackedResource], found: Found, *, dry_run: bool) -> None:
    with only_looking() if dry_run else nullcontext():
        contents, problems = read_contents(resource, chunk)
    odd = []
    for tracked in chunk:
        texts = contents.get(tracked.local_key or "")
        if (problem := problems.get(tracked.local_key or "")) is not None:
            logger.error("%s('%s') cannot be compared: %s", resource.endpoint, tracked.local_key, problem)
            found.unreadable += 1
        elif texts is None:
            # A version that waits to be written has its key, and may well have no row.
            if tracked.is_deferred:
                continue
            found.deleted += 1
        elif tracked.is_deferred or resource.etag(texts, tracked.extra) == tracked.etag:
            continue
        else:
            found.changed += 1
        odd.append(tracked.pk)
    found.looked_at += len(chunk)
    if not dry_run:
        mark_found(resource.database, odd)
