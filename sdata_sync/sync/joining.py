"""Joining: what of a stored batch concerns more than one resource. Names that were replaced, things that are one."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from ..core.decision import Resolution, resolve
from ..exceptions import PayloadError
from ..models import ConflictRecord, TrackedResource
from .disputes import record_of
from .isolation import row_guard
from .linking import rename
from .local_version import LocalVersion
from .log import ANEW, tracked_rows
from .recording import Recorder
from .results import lost_result
from .rows import read_instances
from .storing import defer_late
from .uniting import Union, keep_alias, revive
from .versions import Batch, Version


class Joiner:
    """Joins the versions of a batch to the rows and resources that they are one thing with."""

    def __init__(self, recorder: Recorder, batch: Batch) -> None:
        self._resource = recorder.resource
        self._recorder = recorder
        self._batch = batch
        #: How many of them had to be decided.
        self.conflicts = 0

    def join(self) -> None:
        """Do what is to be done for each version that was written."""
        for version in self._batch.versions:
            if version.error is None and self._is_joined(version):
                try:
                    with row_guard(self._resource.database):
                        self._join(version)
                except PayloadError as error:
                    defer_late(self._batch, version, error)

    @staticmethod
    def _is_joined(version: Version) -> bool:
        """Return True if ``version`` concerns more than its own resource."""
        is_renamed = version.tracked.replaced_by != version.entry.replaced_by
        return bool(is_renamed or version.renames or version.keeps_row or version.same_as or version.revives)

    def _join(self, version: Version) -> None:
        uuid, replaced_by = version.entry.uuid, version.entry.replaced_by
        if version.tracked.replaced_by != replaced_by:
            self._rows(uuid).update(replaced_by=replaced_by)
        if version.renames and replaced_by is not None:
            rename(self._resource, version.renames, uuid, replaced_by, is_edited=version.is_concurrent)
        elif version.keeps_row:
            self._rows(uuid).update(etag=ANEW, mark=self._recorder.now)
            self._recorder.has_recorded = True
        elif version.same_as:
            self._unite(version)
        elif version.revives is not None:
            self._revive(version, version.revives)

    def _rows(self, uuid: UUID) -> QuerySet[TrackedResource]:
        # Made for those few that need one: a queryset costs more than all else that is done here for a version.
        return tracked_rows(self._resource).filter(uuid=uuid)

    def _revive(self, version: Version, survivor: TrackedResource) -> None:
        """Decide what came under an old name against the deletion of what has the new one."""
        resource, recorder, entry = self._resource, self._recorder, version.entry
        survivor.refresh_from_db(using=resource.database)
        held = recorder.held_state(survivor)
        if held is None:
            return
        outcome = resolve(entry.state, held, recorder.source, recorder.target, same_content=False)
        local, rule = LocalVersion(resource, survivor, None), f"same thing; {outcome.by}"
        record = record_of(survivor, entry, held, local, remote_won=outcome.source_wins, rule=rule)
        ConflictRecord.objects.using(resource.database).bulk_create([record])
        self.conflicts += 1
        keep_alias(resource, entry.uuid, survivor.uuid)
        recorder.has_recorded = True
        if not outcome.source_wins:
            self._note_loss(version, survivor, outcome)
            return
        try:
            revive(resource, survivor, version.reading, self._batch.known)
        except PayloadError as error:
            defer_late(self._batch, version, error)

    def _unite(self, version: Version) -> None:
        resource, recorder, key = self._resource, self._recorder, version.same_as
        twin = recorder.numbered(key)
        instance = read_instances(resource, [key]).get(key)
        held = recorder.held_state(twin)
        if instance is None or held is None or twin.uuid == version.entry.uuid:
            error = PayloadError(f"It is the same thing as {resource.kind}('{key}'), which cannot be taken now.")
            defer_late(self._batch, version, error)
            return
        union = Union(
            resource=resource,
            entry=version.entry,
            reading=version.reading,
            twin=twin,
            instance=instance,
            known=self._batch.known,
        )
        try:
            with transaction.atomic(using=resource.database):
                outcome = union.settle(held, recorder.source, recorder.target)
        except PayloadError as error:
            defer_late(self._batch, version, error)
            return
        recorder.has_recorded = True
        self.conflicts += union.is_conflict
        if not outcome.source_wins:
            self._note_loss(version, twin, outcome)

    def _note_loss(self, version: Version, survivor: TrackedResource, outcome: Resolution) -> None:
        self._batch.results[version.entry.uuid] = lost_result(self._resource, version.entry, survivor, outcome)
