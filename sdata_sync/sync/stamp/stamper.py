"""Assign the next tick to every committed mark, and advance the digest (SData sync 2.2)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from ...atom.text import escape, is_representable
from ...core.decision import resolve
from ...core.state import SyncState
from ...exceptions import PayloadError, UnrepresentableText
from ...models import ConflictRecord, TrackedResource
from ..bounds import believed_stamp, stamp_after_believed
from ..content.cascade import waiting_deletions
from ..content.contents import payload_of, read_contents
from ..content.deferred import forget, retry_waiting
from ..content.pending import drop_overruled, store_pending
from ..content.upgrade import take_over
from ..db.clock import now
from ..db.faults import describe, ends_page
from ..db.isolation import atomically_by_row, row_guard
from ..db.prepared import PreparedQuery
from ..db.statements import locks_rows
from ..log.digests import StoredDigest, load_digest, lock_digest
from ..log.events import send_signals
from ..log.marks import mark
from ..log.tracked import create_tracked, set_first_state, untracked_keys, update_tracked, without_tracked
from .restore_gap import ensure_checked, is_checked, restore_gap

if TYPE_CHECKING:
    from ...atom.payload import Text
    from ...kind import Kind

logger = logging.getLogger(__name__)

BATCH = 1000
#: How long an intent, the mark before a write outside a transaction, waits for the mark after the write.
INTENT_GRACE_MILLIS = 60_000
#: The size in bytes of the longest text that libxml2, and with it most peers, accepts.
MAX_TEXT = 10_000_000


def assign_ticks(kind: Kind) -> StoredDigest:
    """Assign ticks to all committed changes of this node, and return the digest afterwards (SData sync 2.2).

    It runs before every delivery, every select and every answer with a digest, so that a digest never promises a
    change that has no tick. No tick is assigned before the restore check is done (``restore_gap.ensure_checked``), nor
    while changes that were lost in a restore are missing.
    """
    return _assign_to_marks(kind) if _has_marks(kind) else load_digest(kind)


def check_and_assign_ticks(kind: Kind, *, patience_seconds: float = 0) -> StoredDigest:
    """Do what ``assign_ticks`` does, after the restore check (network) if a change without a tick is committed.

    ``patience_seconds`` is how long to wait while another thread runs the check. A process that has no tick to assign
    asks no peer.
    """
    if not _has_marks(kind):
        return load_digest(kind)
    ensure_checked(kind, patience_seconds=patience_seconds)
    return _assign_to_marks(kind)


def _has_marks(kind: Kind) -> bool:
    return bool(_first_mark.rows(kind.database, kind.name, *_START))


def _assign_to_marks(kind: Kind) -> StoredDigest:
    if not is_checked(kind) or restore_gap(kind) is not None:
        return load_digest(kind)  # restored from a backup: ticks are assigned when the lost changes are back
    database = kind.database
    position = _START
    while True:
        stored, batch = atomically_by_row(database, partial(_stamp_batch, kind, position))
        if len(batch) < BATCH:
            return stored
        position = _position_after(batch[-1])


def _stamp_batch(kind: Kind, position: _Position) -> tuple[StoredDigest, list[TrackedResource]]:
    stored = lock_digest(kind)
    batch = _next_batch(kind, position)
    stamp_rows(kind, stored, batch)
    return stored, batch


def assign_ticks_under_lock(kind: Kind, stored: StoredDigest) -> None:
    """Assign ticks to all marks, in a transaction that holds the digest's lock already."""
    position = _START
    while batch := _next_batch(kind, position):
        stamp_rows(kind, stored, batch)
        position = _position_after(batch[-1])


#: A cursor over the marks, which are read in the order of their times: time and primary key, as for ``_marked``.
_Position = tuple[int, int]
_START: _Position = (-(2**63), 0)


def _position_after(tracked: TrackedResource) -> _Position:
    return tracked.mark or 0, tracked.pk


def _marked(kind: str, mark: int, pk: int) -> QuerySet[TrackedResource]:
    later = Q(mark__gt=mark) | Q(pk__gt=pk)
    return TrackedResource.objects.filter(later, kind=kind, mark__gte=mark).order_by("mark", "pk")


def _locked(kind: str, mark: int, pk: int) -> QuerySet[TrackedResource]:
    # Rows that a writer has locked are skipped; they get their ticks after the writer's commit. Waiting for them would
    # make every delivery wait for the longest transaction.
    return _marked(kind, mark, pk).select_for_update(skip_locked=True)[:BATCH]


_POSITION_TYPES = (str, int, int)
_first_mark = PreparedQuery(lambda *place: _marked(*place).values_list("pk")[:1], *_POSITION_TYPES)
_batch = PreparedQuery(lambda *place: _marked(*place)[:BATCH], *_POSITION_TYPES)
_locked_batch = PreparedQuery(_locked, *_POSITION_TYPES)


def _next_batch(kind: Kind, position: _Position) -> list[TrackedResource]:
    query = _locked_batch if locks_rows(kind.database) else _batch
    return query.instances(kind.database, TrackedResource, kind.name, *position)


def stamp_rows(kind: Kind, stored: StoredDigest, marked: Sequence[TrackedResource]) -> None:
    """Assign ticks to the locked rows ``marked``, under the digest's lock with which ``stored`` was read."""
    if not marked:
        return
    if any(tracked.extra for tracked in marked):
        take_over(kind, marked)
    stamper = _Stamper(kind, stored)
    contents, problems = read_contents(kind, marked, allocate=True)
    stamper.find_waiting_deletions(marked)
    for tracked in marked:
        stamper.stamp(tracked, contents, problems)
    stamper.write()
    # A collation of the application's column may find a row by another spelling of its key: that row was written.
    if spelled := contents.keys() - {tracked.local_key for tracked in marked}:
        mark(kind.database, kind.name, spelled)


def stamp_new_rows(kind: Kind, stored: StoredDigest, new: Sequence[TrackedResource]) -> None:
    """Assign ticks to untracked rows, under the digest's lock; ``new`` are their resources, not stored yet."""
    if not new:
        return
    stamper = _Stamper(kind, stored)
    contents, problems = read_contents(kind, new, allocate=True)
    if kind.relations:
        # A row that another of them refers to was tracked and marked by that: it gets its tick as a marked row.
        untracked = set(without_tracked(kind, [row.row_key for row in new]))
        new = [row for row in new if row.local_key in untracked]
    for tracked in new:
        tracked.mark = stamper.now
        stamper.stamp(tracked, contents, problems)
    # A row that does not exist any more has no tick and no problem, and is not stored. A row that cannot be sent is
    # stored with its mark and its problem.
    create_tracked(kind.database, [row for row in new if row.tick is not None or row.problem])
    stamper.changed.clear()
    stamper.forgotten.clear()
    stamper.write()


def is_young_intent(tracked: TrackedResource, now: int) -> bool:
    """Return True if ``tracked`` is an intent and its writer may still be writing the row; ``now`` in milliseconds."""
    # A mark further ahead than the grace was made before the clock was set back.
    return tracked.is_intent and abs(now - (tracked.mark or 0)) < INTENT_GRACE_MILLIS


class _Stamper:
    def __init__(self, kind: Kind, stored: StoredDigest) -> None:
        self.kind = kind
        self.stored = stored
        self.digest = stored.value
        self.next_tick = stored.value.tick(kind.endpoint)
        self.now = now()
        self.changed: list[TrackedResource] = []
        self.undeferred: list[TrackedResource] = []
        self.without_row: list[int] = []
        self.forgotten: list[int] = []
        self.unbound: list[int] = []
        self.incomplete: dict[int, list[Text]] = {}
        self.waiting_deletions: set[int] = set()
        self.conflicts: list[ConflictRecord] = []
        #: A deferred entry is not retried while its row is marked; the mark of such a row is cleared.
        self.frees_deferred = False

    def find_waiting_deletions(self, marked: Sequence[TrackedResource]) -> None:
        """Find those of ``marked`` that have a deferred deletion."""
        deferred = [row.pk for row in marked if row.is_deferred]
        if deferred:
            entries = waiting_deletions(self.kind).filter(resource__in=deferred)
            self.waiting_deletions.update(entries.values_list("resource_id", flat=True))

    def stamp(self, tracked: TrackedResource, contents: dict[str, list[Text]], problems: dict[str, str]) -> None:
        """Assign a tick to one marked resource, or clear its mark, or hold it back."""
        key = tracked.local_key
        texts = None if key is None else contents.get(key)
        if texts is not None:
            self._stamp_row(tracked, texts)
        elif key is not None and key in problems:
            self._hold_back(tracked, problems[key])
        elif self._is_young_intent(tracked):
            pass  # the writer may not have committed the row yet
        elif tracked.tick is None and not tracked.is_deferred and not tracked.restamp:
            # No other node knows it. Without a key it is a placeholder, and its writer has not created the row in time.
            (self.forgotten if tracked.local_key is not None else self.unbound).append(tracked.pk)
        elif (tracked.is_deleted and not tracked.restamp) or (tracked.is_deferred and tracked.local_key is None):
            self._clear(tracked)
        else:
            self._assign_tick(tracked)
            tracked.is_deleted, tracked.local_key, tracked.etag, tracked.extra = True, None, "", ""
            if tracked.is_incomplete:
                self.without_row.append(tracked.pk)

    def _stamp_row(self, tracked: TrackedResource, texts: list[Text]) -> None:
        if tracked.is_incomplete:
            self.incomplete[tracked.pk] = texts
        etag = self.kind.etag(texts, tracked.extra)
        if etag == tracked.etag and tracked.tick is not None and not tracked.restamp:
            if not self._is_young_intent(tracked):
                self._clear(tracked)
            return
        problem = self._problem(tracked, texts)
        if problem:
            self._hold_back(tracked, problem)
            return
        if tracked.pk in self.waiting_deletions:
            try:
                with row_guard(self.kind.database, savepoint=False):
                    loses = self._loses_to_deletion(tracked, texts)
            except PayloadError as error:
                self._hold_back(tracked, str(error))
                return
            if loses:
                tracked.etag = etag
                return
        self._assign_tick(tracked)
        tracked.is_deleted, tracked.etag = False, etag
        self.stored.stamped_texts[tracked.row_key] = texts

    def _loses_to_deletion(self, tracked: TrackedResource, texts: list[Text]) -> bool:
        """Decide between a local edit of a row and its deferred deletion; return True if the deletion wins.

        The deletion then stays deferred. The two are in conflict, because the row still existed here when it was
        edited.
        """
        deletion = SyncState(
            endpoint=self.stored.endpoint_url(tracked.endpoint_id or 0),
            tick=tracked.tick or 0,
            stamp=tracked.stamp,
            user=tracked.user,
        )
        own, mark = self.kind.endpoint, tracked.mark or self.now
        edit = SyncState(endpoint=own, tick=self.next_tick, stamp=mark, user=tracked.mark_user)
        outcome = resolve(believed_stamp(deletion, self.now), edit, self.digest, self.digest, same_content=False)
        self.conflicts.append(
            ConflictRecord(
                resource=tracked,
                decided_at=timezone.now(),
                remote_won=outcome.source_wins,
                rule=str(outcome.by),
                local_endpoint=own,
                local_stamp=mark,
                local_user=edit.user,
                local_payload=payload_of(self.kind, tracked, texts),
                remote_endpoint=deletion.endpoint,
                remote_stamp=deletion.stamp,
                remote_user=deletion.user,
            )
        )
        if not outcome.source_wins:
            return False
        if outcome.record:  # other nodes must learn that the deletion won over the later stamp
            tracked.stamp = stamp_after_believed(mark, tracked.stamp)
            tracked.endpoint_id, tracked.tick = self.stored.ensure_endpoint_id(own), self.next_tick
            self.next_tick += 1
        self._clear(tracked)
        return True

    def _hold_back(self, tracked: TrackedResource, problem: str) -> None:
        """Leave a change without a tick because its row cannot be read, encoded or rendered; it is tried again.

        The digest does not contain a change without a tick, so no peer counts it as received.
        """
        if problem != tracked.problem:
            logger.error("%s('%s') is held back: %s", self.kind.endpoint, tracked.local_key, problem)
            tracked.problem = problem
            self.changed.append(tracked)

    def _problem(self, tracked: TrackedResource, texts: list[Text]) -> str:
        return self._unwritable(texts) or (self._render_problem(tracked, texts) if tracked.problem else "")

    def _render_problem(self, tracked: TrackedResource, texts: list[Text]) -> str:
        """Render a row that was held back; return the description of the exception, empty if it can be sent."""
        try:
            self.kind.render("", texts, tracked.extra)
        except Exception as error:
            if ends_page(error):
                raise
            return describe(error)
        return ""

    def _unwritable(self, texts: list[Text]) -> str:
        for relation, text in zip(self.kind.relations, texts[len(self.kind.properties) :], strict=True):
            if problem := relation.problem(text):
                return f"{relation.name}: {problem}"
        content = "".join([text for text in texts if text])
        if is_representable(content) and len(content) < MAX_TEXT // 4:
            return ""
        for name, text in zip(self.kind.property_names, texts, strict=True):
            try:
                if len((text or "").encode("utf-8", "replace")) > MAX_TEXT:
                    return f"{name}: the text is longer than the {MAX_TEXT} bytes that XML parsers accept."
                escape(text or "")
            except UnrepresentableText as error:
                return f"{name}: {error}"
        return ""

    def _is_young_intent(self, tracked: TrackedResource) -> bool:
        return is_young_intent(tracked, self.now)

    def _clear(self, tracked: TrackedResource) -> None:
        tracked.mark, tracked.is_intent, tracked.problem, tracked.restamp = None, False, "", False
        self.changed.append(tracked)
        self.frees_deferred = self.frees_deferred or tracked.is_deferred

    def _assign_tick(self, tracked: TrackedResource) -> None:
        set_first_state(tracked)
        replaced = [] if tracked.tick is None else [tracked.stamp]
        tracked.stamp = stamp_after_believed(tracked.mark or self.now, *replaced)
        tracked.endpoint_id = self.stored.ensure_endpoint_id(self.kind.endpoint)
        tracked.tick = self.next_tick
        tracked.awaited_endpoint_id, tracked.keeps_content = None, False
        set_first_state(tracked)
        tracked.user = tracked.mark_user
        self.next_tick += 1
        if tracked.is_deferred:
            self.undeferred.append(tracked)
        if self._is_young_intent(tracked):
            tracked.problem, tracked.restamp = "", False
            self.changed.append(tracked)  # the mark after the write follows, and finds the content unchanged
        else:
            self._clear(tracked)

    def write(self) -> None:
        """Store the outcomes of all ``stamp`` calls, and the advanced digest."""
        database = self.kind.database
        update_tracked(database, self.changed)
        ConflictRecord.objects.using(database).bulk_create(self.conflicts)
        send_signals(self.kind, self.conflicts, [])
        tracked = TrackedResource.objects.using(database)
        forget(self.kind, self.undeferred)
        if overruled := [*(row.pk for row in self.undeferred), *self.without_row]:
            store_pending(self.kind, {}, replaced=overruled)
        if self.forgotten:
            tracked.filter(pk__in=self.forgotten).delete()
        if self.unbound:
            track_missing(self.kind)
            tracked.filter(pk__in=self.unbound).delete()
        drop_overruled(self.kind, self.incomplete)
        if self.frees_deferred:
            transaction.on_commit(partial(retry_waiting, self.kind), using=database, robust=True)
        last = SyncState(endpoint=self.kind.endpoint, tick=self.next_tick - 1, stamp=self.now)
        self.stored.save(self.digest.advance(last, stamp=self.now))


def track_missing(kind: Kind) -> int:
    """Mark every untracked row, and return the number of these rows.

    The keys of the whole table are read, in batches.
    """
    found = 0
    for keys in untracked_keys(kind):
        mark(kind.database, kind.name, keys)
        found += len(keys)
    return found
