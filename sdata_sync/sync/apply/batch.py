"""Prepare received versions in batches: read tracked resources and rows, plan the change of each row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models
from django.db.models import QuerySet

from ...atom.text import format_stamp
from ...conf import conf
from ...core.digest import Digest
from ...core.state import SyncState, same_endpoint
from ...exceptions import OutOfPart, PayloadError, StampAhead
from ...models import ConflictRecord, Endpoint, TrackedResource
from ...relations import Reading
from ..bounds import latest_stamp
from ..content.boundary import check_reading
from ..content.contents import waiting_of
from ..content.resolve import ReferenceCache, RowAction, RowChange, keep_waiting, prepare_row, targets_of
from ..content.rows import brought_key, existing_keys, joined_key, read_instances_apart, unreadable_row
from ..db.clock import now
from ..db.faults import describe, ends_page
from ..db.isolation import row_guard
from ..db.prepared import PreparedQuery
from ..db.statements import locks_rows
from ..identity.link import survivor_of
from ..log.keys import key_of
from ..log.tracked import new_tracked

if TYPE_CHECKING:
    from ...atom.entry import Entry, Result
    from ...kind import Kind
    from ..content.conditions import Condition
    from ..scope import RowScope

logger = logging.getLogger(__name__)


class Plan(StrEnum):
    """Name what is done with a received version."""

    #: Create or update the row.
    WRITE = "write"
    #: Delete the row, if there is one.
    DELETE = "delete"
    #: Keep the content of the row, which was linked to the uuid, and send it to the peers.
    KEEP = "keep"
    #: Give the row the uuid that has replaced this one.
    RENAME = "rename"
    #: Merge the version with the row that is the same thing under another uuid.
    MERGE = "merge"
    #: Bring back the deleted resource that the uuid is an alias of.
    RESURRECT = "resurrect"
    #: Write nothing and keep the version as a deferred entry.
    DEFER = "defer"


@dataclass(kw_only=True, eq=False)
class Version:
    """Hold one received version and the plan for it.

    Attributes:
        is_new: this node has no TrackedResource of the uuid yet.
        row: the change of the row that the plan makes, ``None`` if it makes none.
        error: the reason of the plan ``DEFER``, ``None`` for other plans.
        is_concurrent: this version and the local one were made without knowledge of each other.
        other_key: the primary key of the row to rename (``RENAME``) or to merge with (``MERGE``).
        survivor: the deleted resource to bring back (``RESURRECT``).
        before: the columns of ``tracked`` from before this version was accepted, if its sender has a part of the rows.
    """

    entry: Entry
    tracked: TrackedResource
    is_new: bool
    plan: Plan
    row: RowChange | None = None
    reading: Reading = field(default_factory=lambda: Reading({}))
    error: PayloadError | None = None
    is_concurrent: bool = False
    other_key: str = ""
    survivor: TrackedResource | None = None
    before: dict[str, Any] | None = None

    def defer(self, error: PayloadError) -> None:
        """Plan to keep the version as a deferred entry because of ``error``."""
        self.plan, self.error = Plan.DEFER, error

    def plan_merge(self, batch: Batch, same_key: str | None) -> None:
        """Plan ``MERGE`` or ``RESURRECT`` if another row or deleted resource is the same thing as the new one.

        ``same_key`` is the local key of the row that has the primary key of the new one. Two rows that came from the
        source are two things, whatever ``find_duplicate`` says.

        Raises:
            OutOfPart: the other row is not in the part of the sender.
            PayloadError: ``SyncResource.find_duplicate`` raised an exception.
        """
        self._find_same(batch, same_key)
        if self.plan is Plan.MERGE:
            batch.check_within_part(self.other_key)

    def _find_same(self, batch: Batch, same_key: str | None) -> None:
        kind = batch.kind
        survivor = survivor_of(kind, self.tracked)
        if survivor is not self.tracked:
            if survivor.local_key is None:
                self.plan, self.survivor = Plan.RESURRECT, survivor
            else:
                self.plan, self.other_key = Plan.MERGE, survivor.local_key
            return
        assert self.row is not None
        if same_key is not None:
            self.plan, self.other_key = Plan.MERGE, same_key
            return
        try:
            duplicate = kind.declared.find_duplicate(self.row.instance)
        except Exception as error:
            if ends_page(error):
                raise
            logger.exception("find_duplicate() of %r failed; the entry is deferred", kind)
            raise PayloadError(f"find_duplicate(): {describe(error)}", public="Refused.") from error
        if duplicate is not None and not _came_from(batch.source, kind, key_of(duplicate)):
            self.plan, self.other_key = Plan.MERGE, key_of(duplicate)

    def keep_waiting(self, kind: Kind, brought: Container[str]) -> None:
        """Keep the pending references of the row in relations that the entry does not have (``brought``)."""
        if self.row is not None and self.tracked.is_incomplete:
            waiting = waiting_of(kind, [self.tracked])
            keep_waiting(kind, self.row, brought, waiting.get(self.tracked.row_key, {}))


@lru_cache(maxsize=512)
def _by_uuid(count: int, *, lock: bool) -> PreparedQuery[TrackedResource]:
    """Return the query for ``count`` tracked resources, which are locked in the order of their primary keys."""

    def build(kind: str, *uuids: UUID) -> QuerySet[TrackedResource]:
        rows = TrackedResource.objects.filter(kind=kind, uuid__in=uuids).order_by("pk")
        return rows.select_for_update() if lock else rows

    return PreparedQuery(build, str, *[TrackedResource._meta.get_field("uuid")] * count)


def _read_tracked(kind: Kind, uuids: Sequence[UUID]) -> list[TrackedResource]:
    query = _by_uuid(len(uuids), lock=locks_rows(kind.database))
    return query.instances(kind.database, TrackedResource, kind.name, *uuids)


def _came_from(source: Digest, kind: Kind, key: str) -> bool:
    """Return True if ``source`` contains the first state that this node had of the row ``key``, made at another node.

    The digest of a partial replica also contains changes of rows that the replica does not have.
    """
    if source.part_of:
        return False
    tracked = TrackedResource.objects.using(kind.database).filter(kind=kind.name, local_key=key).first()
    if tracked is None:
        return False
    first = (tracked.first_endpoint_id, tracked.first_tick)
    if tracked.first_tick is None:
        first = (tracked.endpoint_id, tracked.tick)
    url = Endpoint.objects.using(kind.database).filter(pk=first[0] or 0).values_list("url", flat=True).first()
    if url is None or same_endpoint(url, kind.endpoint):
        return False
    return source.contains(SyncState(endpoint=url, tick=first[1] or 0, stamp=0))


class Batch:
    """Hold entries that are decided and written together, each of a different resource, with the local rows.

    ``results`` holds the results by uuid, in the order of the entries. ``versions`` are the versions to write,
    ``touched`` the tracked resources to update. ``condition`` returns the condition of the deletions in the batch.
    ``part`` bounds what the sender may write, ``None`` if it may write all rows.
    """

    def __init__(
        self,
        kind: Kind,
        entries: Sequence[Entry],
        condition: Callable[[], Condition],
        source: Digest,
        part: RowScope | None = None,
    ) -> None:
        self.kind = kind
        self.source = source
        self.part = part
        self._using = kind.database
        self._condition = condition
        self._latest_stamp = latest_stamp(now())
        tracked = _read_tracked(kind, [entry.uuid for entry in entries])
        self.tracked = {row.uuid: row for row in tracked}
        keys = [row.local_key for row in tracked if row.local_key is not None]
        self.instances, self._unreadable = read_instances_apart(kind, keys)
        #: The local keys of the rows that are in the part of the sender, before the batch is applied.
        self._inside = set() if part is None else part.among(keys)
        self.known = ReferenceCache()
        self.results: dict[UUID, Result] = {}
        self.versions: list[Version] = []
        self.touched: dict[UUID, TrackedResource] = {}
        self.conflicts: list[ConflictRecord] = []
        self._readings: dict[UUID, Reading | PayloadError] = {}
        self._made: dict[UUID, Version] = {}
        #: Those of the primary keys in the entries that have a row.
        self._taken: set[str] = set()

    def look_up_references(self, entries: Sequence[Entry]) -> None:
        """Look up the targets of all ``entries`` together, and the rows whose primary key they bring."""
        if not (self.kind.relations or self.kind.brings_keys):
            return
        # A row that this batch deletes counts as missing; if it stays after all, the pending reference is written
        # later.
        self.known.forget((self.kind.name, entry.uuid) for entry in entries if entry.is_deleted)
        brought = [entry for entry in entries if entry.payload is not None and not entry.is_deleted]
        self._readings = {entry.uuid: self._read_payload(entry) for entry in brought}
        whole = [reading for reading in self._readings.values() if isinstance(reading, Reading)]
        self.known.look_up(target for reading in whole for target in targets_of(self.kind, reading))
        if self.kind.brings_keys:
            self._look_up_keys(whole)

    def _look_up_keys(self, readings: Iterable[Reading]) -> None:
        brought = (joined_key(self.kind, reading.values) for reading in readings)
        self._taken = existing_keys(self.kind, [key for key in brought if key is not None])

    def _row_with_key_of(self, instance: models.Model) -> str | None:
        """Return the local key that the new row ``instance`` brings, if this node has a row with it."""
        key = brought_key(self.kind, instance)
        if key is None:
            return None
        is_plain = all(name in self.kind.by_column for name in self.kind.key_columns)
        taken = self._taken if is_plain else existing_keys(self.kind, [key])  # references are resolved one by one
        return key if key in taken else None

    def _read_payload(self, entry: Entry) -> Reading | PayloadError:
        if entry.payload is None:
            return PayloadError("Expected a payload, found none.")
        try:
            with row_guard(self._using, savepoint=False):
                return self.kind.decode(entry.payload)
        except PayloadError as error:
            return error

    def instance_of(self, tracked: TrackedResource) -> models.Model | None:
        """Return the row of ``tracked``, or ``None`` if it has none."""
        return self.instances.get(tracked.row_key)

    def version(self, entry: Entry) -> Version:
        """Return the version of ``entry`` with its plan; nothing is written yet."""
        if (made := self._made.get(entry.uuid)) is not None:
            return made
        tracked = self.tracked.get(entry.uuid)
        is_new = tracked is None
        if tracked is None:
            tracked = self.tracked[entry.uuid] = new_tracked(self.kind.name, entry.uuid)
        plan = Plan.DELETE if entry.is_deleted else Plan.WRITE
        version = Version(entry=entry, tracked=tracked, is_new=is_new, plan=plan)
        self._made[entry.uuid] = version
        try:
            with row_guard(self._using, savepoint=False):
                self._prepare(version)
        except PayloadError as error:
            version.defer(error)
        return version

    def _prepare(self, version: Version) -> None:
        stamp = version.entry.state.stamp
        if stamp > self._latest_stamp:
            raise StampAhead(
                f"Expected a stamp at most {conf.max_stamp_ahead_seconds:.0f} s ahead of this node's clock "
                f"(SDATA_SYNC['MAX_STAMP_AHEAD_SECONDS']), received {format_stamp(stamp)}. Correct the clock of "
                f"{version.entry.state.endpoint} or of this node; or apply the entry in the admin."
            )
        key = version.tracked.row_key
        if key in self._unreadable:
            raise unreadable_row(key, self._unreadable[key])
        instance = self.instance_of(version.tracked)
        if version.entry.is_deleted:
            _prepare_deletion(version, instance, self._condition)
            if version.row is not None:
                version.row.part = self.part
        else:
            self._prepare_row(version, instance)
            self._bind(version, instance)

    def check_within_part(self, key: str) -> None:
        """Check that the row ``key`` is in the part of the sender.

        Raises:
            OutOfPart: it is not.
        """
        if self.part is not None and key not in self._inside and not self.part.among([key]):
            raise OutOfPart

    def is_inside(self, tracked: TrackedResource | None) -> bool:
        """Return True if the row of ``tracked`` is in the part of the sender, or if it has no row."""
        return self.part is None or tracked is None or tracked.local_key is None or tracked.local_key in self._inside

    def _bind(self, version: Version, instance: models.Model | None) -> None:
        """Check what a version refers to, and let the writer check that the row lies in the part of the sender."""
        if self.part is None:
            return
        check_reading(self.part, version.tracked, instance, version.reading)
        was_inside = instance is not None and version.tracked.local_key in self._inside
        if version.row is not None and not (was_inside and self.kind.declared.may_move):
            version.row.part = self.part

    def _prepare_row(self, version: Version, instance: models.Model | None) -> None:
        reading = self._readings.get(version.entry.uuid) or self._read_payload(version.entry)
        if isinstance(reading, PayloadError):
            raise reading
        version.reading = reading
        version.row = prepare_row(self.kind, instance, reading, self.known)
        version.keep_waiting(self.kind, reading.related)
        if instance is None:
            version.plan_merge(self, self._row_with_key_of(version.row.instance))
            if version.plan is not Plan.WRITE:
                version.row = None
        elif version.tracked.keeps_content:
            version.row, version.plan = None, Plan.KEEP


def _prepare_deletion(version: Version, instance: models.Model | None, condition: Callable[[], Condition]) -> None:
    entry = version.entry
    if instance is None:
        return
    if version.tracked.keeps_content:
        version.plan = Plan.KEEP
    elif entry.replaced_by is not None:
        version.plan, version.other_key = Plan.RENAME, key_of(instance)
    else:
        version.row = RowChange(
            instance=instance,
            action=RowAction.WITHDRAW if entry.is_withdrawn else RowAction.DELETE,
            condition=None if entry.is_withdrawn else condition(),
        )
