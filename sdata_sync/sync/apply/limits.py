"""Limit what one sender may delete, and what it may leave for people to decide.

A mass deletion waits for a confirmation. Deferred entries and conflicts are the only copy of an edit and are never
deleted to make room, so a page is refused when its sender has left too many of them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

from ...conf import conf
from ...core.text import fold
from ...exceptions import MassDeletion, TooManyWaiting
from ...models import ConflictRecord, DeferredEntry, DigestEntry
from ..content.resolve import RowAction
from ..db.clock import SKEW_MILLIS, now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...kind import Kind
    from ..trust import Speaker
    from .batch import Version

#: The time over which the deletions of a sender are counted.
WINDOW_MILLIS = 60 * 60 * 1000
#: Up to this number of deletions within the time, their percentage does not count.
FEW_DELETIONS = 10


class DeletionBrake:
    """Defer the deletions of a page if its sender deletes too many rows of the kind within an hour."""

    def __init__(self, kind: Kind, origin: str) -> None:
        self._kind = kind
        self._origin = origin
        self._entries = DigestEntry.objects.using(kind.database).filter(digest=kind.name, endpoint__key=fold(origin))
        #: The start of the window and the number of deletions in it; read when there is a deletion.
        self._window: tuple[int, int] | None = None

    def check(self, versions: Iterable[Version]) -> None:
        """Defer the deletions among ``versions`` if they are too many, else count them."""
        deletions = [
            version
            for version in versions
            if version.row is not None and version.row.action is RowAction.DELETE and version.error is None
        ]
        if not deletions:
            return
        since, before = self._window or self._read()
        count = before + len(deletions)
        if self._is_too_many(before, count):
            error = MassDeletion(
                f"{self._origin or 'A sender without an origin'} deletes {count} rows of {self._kind.name} within an "
                f"hour. More than {conf.max_deletions} (MAX_DELETIONS), or {conf.max_deletion_percent} % of the kind "
                "(MAX_DELETION_PERCENT), wait for a confirmation: apply the deletions or keep the rows, in the admin."
            )
            for version in deletions:
                version.defer(error)
                version.row = None
            return
        self._window = since, count

    def _read(self) -> tuple[int, int]:
        found = self._entries.values_list("deletions_since", "deletions").first() or (0, 0)
        is_recent = now() - WINDOW_MILLIS < found[0] <= now() + SKEW_MILLIS
        return found if is_recent else (now(), 0)

    def _is_too_many(self, before: int, count: int) -> bool:
        if count > conf.max_deletions:
            return True
        if count <= FEW_DELETIONS:
            return False
        total = self._kind.rows().count() + before
        return count * 100 > conf.max_deletion_percent * total

    def store(self) -> None:
        """Store the number of deletions, after the digest was saved."""
        if self._window is not None:
            since, count = self._window
            self._entries.update(deletions_since=since, deletions=count)


def check_room(kind: Kind, speaker: Speaker) -> None:
    """Check that the sender has not left too many entries and conflicts; call it when a page has left some.

    Raises:
        TooManyWaiting: the sender has left more than ``MAX_WAITING`` deferred entries, or as many conflicts within a
            day.
    """
    sender = speaker.sender[:150]
    entries = DeferredEntry.objects.using(kind.database).filter(login=sender, is_discarded=False)
    since = timezone.now() - timedelta(days=1)
    conflicts = ConflictRecord.objects.using(kind.database).filter(login=sender, decided_at__gte=since)
    for rows, what in ((entries, "deferred entries"), (conflicts, "conflicts within a day")):
        count = rows.count()
        if count > conf.max_waiting:
            raise TooManyWaiting(
                f"Expected at most {conf.max_waiting} {what} of {speaker.sender} (SDATA_SYNC['MAX_WAITING']), found "
                f"{count} with those of this page. Nothing of the page is applied. Decide about them in the admin."
            )
