"""Merge a received version with a row that is the same thing: it has the same unique value, or the survivor's uuid.

The content is decided like a conflict. The smaller of the two uuids survives at every node, and the other one becomes
its alias. So two nodes that merge at the same time get the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models, transaction
from django.db.models import QuerySet

from ...core.decision import Resolution, Rule, resolve
from ...exceptions import PayloadError
from ...models import ConflictRecord, TrackedResource
from ..bounds import believed_stamp
from ..content.contents import LocalVersion, merged, value_of, waiting_of
from ..content.pending import hand_over, store_pending
from ..content.resolve import ReferenceCache, RowAction, RowChange, keep_waiting, prepare_row, set_attributes
from ..content.rows import read_instances
from ..content.write.writer import write_rows
from ..db.clock import now
from ..db.isolation import row_guard
from ..identity.link import mark_referrers_of_key, release, rename
from ..log.tracked import tracked_rows
from ..log.wakeup import wake_after_commit
from .batch import Plan
from .conflicts import ask_application, outcome_of, record_of
from .results import lost_result
from .store import defer_late

if TYPE_CHECKING:
    from ...atom.entry import Entry
    from ...core.digest import Digest
    from ...core.state import SyncState
    from ...kind import Kind
    from ...relations import Reading
    from .batch import Batch, Version
    from .recorder import Recorder


@dataclass(kw_only=True, eq=False)
class DuplicateMerge:
    """Merge a received version with the row that is the same thing under another uuid, that of ``duplicate``."""

    kind: Kind
    entry: Entry
    reading: Reading
    duplicate: TrackedResource
    instance: models.Model
    known: ReferenceCache
    is_conflict: bool = False
    #: The stored values by column that the application's ``resolve`` has merged.
    decided: dict[str, Any] | None = None

    def merge(self, local_state: SyncState, source: Digest, target: Digest) -> Resolution:
        """Merge both resources, and return the decision whose content stays.

        The received resource is stored already, without a row.

        Raises:
            PayloadError: the received content cannot be written.
        """
        local = LocalVersion(self.kind, self.duplicate, self.instance, allocate=True)
        same_content = self._has_same_content(local)
        at = now()
        outcome = resolve(
            believed_stamp(self.entry.state, at),
            believed_stamp(local_state, at),
            source,
            target,
            same_content=same_content,
        )
        if not same_content:
            outcome = self._as_the_application_says(local_state, local, outcome)
            record = record_of(
                self.duplicate,
                self.entry,
                local_state,
                local,
                remote_won=outcome.source_wins,
                rule=f"same thing; {outcome.by}",
            )
            ConflictRecord.objects.using(self.kind.database).bulk_create([record])
            self.is_conflict = True
        change = self._written() if outcome.source_wins else None
        # Without an etag the content of the row becomes a change of this node: the rules decide otherwise elsewhere.
        is_received = change is not None and outcome.by is not Rule.APPLICATION
        etag = self.kind.etag(change.texts, self.reading.extra) if change is not None and is_received else ""
        if str(self.entry.uuid) < str(self.duplicate.uuid):
            self._keep_received(etag)
        else:
            self._keep_local(is_changed=outcome.source_wins and not same_content)
        if change is not None:
            self._wait_for(change)
        wake_after_commit(self.kind.name, self.kind.database)
        return outcome

    def _as_the_application_says(self, local_state: SyncState, local: LocalVersion, outcome: Resolution) -> Resolution:
        if not self.kind.decides_itself:
            return outcome
        row = prepare_row(self.kind, None, self.reading, self.known)
        remote = {name: value_of(row.instance, name) for name in row.names}
        decision = ask_application(self.kind, self.entry, local_state, local, remote, outcome)
        if isinstance(decision, Mapping):
            self.decided = self.kind.stored_values(decision, is_new=False)
        return outcome_of(decision, outcome)

    def _has_same_content(self, local: LocalVersion) -> bool:
        if local.contents is None:
            return False
        try:
            contents = merged(self.kind, self.reading, local.contents)
            received = prepare_row(self.kind, None, self.reading, self.known).values
        except PayloadError:
            return False
        for position, relation in enumerate(self.kind.relations, len(self.kind.properties)):
            columns = relation.columns if relation.name in self.reading.related else ()
            if columns and all(received.get(name) == getattr(self.instance, name) for name in columns):
                contents[position] = local.contents[position]  # the same row, perhaps under another uuid
        return contents == local.contents

    def _written(self) -> RowChange:
        """Write the received content into the row, and return the change."""
        if self.decided is not None:
            set_attributes(self.kind, self.instance, self.decided)
            change = RowChange(instance=self.instance, action=RowAction.UPDATE, values=self.decided)
        else:
            change = prepare_row(self.kind, self.instance, self.reading, self.known)
        waiting = waiting_of(self.kind, [self.duplicate]).get(self.duplicate.row_key, {})
        keep_waiting(self.kind, change, self.reading.related, waiting)
        write_rows(self.kind, [change])
        if change.error is not None:
            raise change.error
        return change

    def _wait_for(self, change: RowChange) -> None:
        """Move the pending references to the resource that has the row now."""
        owner = tracked_rows(self.kind).get(local_key=self.duplicate.local_key)
        gone = [self.duplicate.pk, *self._received().values_list("pk", flat=True)]
        store_pending(self.kind, {owner.pk: change.pending}, replaced=gone)

    def _keep_received(self, etag: str) -> None:
        key = self.duplicate.row_key
        release(self.kind, self.duplicate, replaced_by=self.entry.uuid)
        hand_over(self.kind, self.duplicate.pk, self._received().get().pk)
        self._received().update(
            local_key=key,
            is_deleted=False,
            replaced_by=None,
            etag=etag,
            restamp=not etag,
            extra=self.reading.extra if etag else self.duplicate.extra,
            mark=None if etag else now(),
        )
        mark_referrers_of_key(self.kind, key)

    def _keep_local(self, *, is_changed: bool) -> None:
        keep_alias(self.kind, self.entry.uuid, self.duplicate.uuid)
        if is_changed:
            tracked_rows(self.kind).filter(pk=self.duplicate.pk).update(
                restamp=True, extra=self.reading.extra, mark=now(), is_intent=False
            )

    def _received(self) -> models.QuerySet[TrackedResource]:
        return tracked_rows(self.kind).filter(uuid=self.entry.uuid)


def keep_alias(kind: Kind, uuid: UUID, survivor: UUID) -> None:
    """Make ``uuid`` an alias of ``survivor`` and mark it, so that it is sent."""
    tracked_rows(kind).filter(uuid=uuid).update(
        local_key=None, is_deleted=True, replaced_by=survivor, restamp=True, mark=now() - 1
    )


def revive(kind: Kind, deleted: TrackedResource, reading: Reading, known: ReferenceCache) -> None:
    """Bring back a deleted resource with the content that was received under its alias: a change of this node.

    Raises:
        PayloadError: the content cannot be written.
    """
    change = prepare_row(kind, None, reading, known)
    change.uuid = deleted.uuid
    write_rows(kind, [change])
    if change.error is not None:
        raise change.error
    tracked_rows(kind).filter(pk=deleted.pk).update(
        local_key=change.local_key,
        is_deleted=False,
        restamp=True,
        extra=reading.extra,
        mark=now(),
    )
    store_pending(kind, {deleted.pk: change.pending}, replaced=[deleted.pk])


class Merger:
    """Merge the versions of a batch with the rows and resources that are the same thing."""

    def __init__(self, recorder: Recorder, batch: Batch) -> None:
        self._kind = recorder.kind
        self._recorder = recorder
        self._batch = batch
        #: The number of conflicts among them.
        self.conflicts = 0

    def merge_all(self) -> None:
        """Carry out the plans that concern a second resource."""
        for version in self._batch.versions:
            if version.plan is not Plan.DEFER and self._is_merged(version):
                try:
                    with row_guard(self._kind.database):
                        self._merge(version)
                except PayloadError as error:
                    defer_late(self._batch, version, error)

    @staticmethod
    def _is_merged(version: Version) -> bool:
        """Return True if the plan of ``version`` concerns a second resource or the alias of its own."""
        is_renamed = version.tracked.replaced_by != version.entry.replaced_by
        return is_renamed or version.plan in (Plan.RENAME, Plan.KEEP, Plan.MERGE, Plan.RESURRECT)

    def _merge(self, version: Version) -> None:
        uuid, replaced_by = version.entry.uuid, version.entry.replaced_by
        if version.tracked.replaced_by != replaced_by:
            self._rows(uuid).update(replaced_by=replaced_by)
        if version.plan is Plan.RENAME and replaced_by is not None:
            rename(self._kind, version.other_key, uuid, replaced_by, is_edited=version.is_concurrent)
        elif version.plan is Plan.KEEP:
            self._rows(uuid).update(restamp=True, mark=self._recorder.now)
            self._recorder.has_recorded = True
        elif version.plan is Plan.MERGE:
            self._merge_rows(version)
        elif version.survivor is not None:
            self._revive(version, version.survivor)

    def _rows(self, uuid: UUID) -> QuerySet[TrackedResource]:
        # Made only where it is needed: building a queryset costs more than the rest of the loop.
        return tracked_rows(self._kind).filter(uuid=uuid)

    def _revive(self, version: Version, survivor: TrackedResource) -> None:
        """Decide a version that was received under an alias against the deletion of the surviving resource."""
        kind, recorder, entry = self._kind, self._recorder, version.entry
        survivor.refresh_from_db(using=kind.database)
        local_state = recorder.local_state(survivor)
        if local_state is None:
            return
        outcome = resolve(
            believed_stamp(entry.state, recorder.now),
            believed_stamp(local_state, recorder.now),
            recorder.source,
            recorder.target,
            same_content=False,
        )
        local, rule = LocalVersion(kind, survivor, None, allocate=True), f"same thing; {outcome.by}"
        record = record_of(survivor, entry, local_state, local, remote_won=outcome.source_wins, rule=rule)
        ConflictRecord.objects.using(kind.database).bulk_create([record])
        self.conflicts += 1
        keep_alias(kind, entry.uuid, survivor.uuid)
        recorder.has_recorded = True
        if not outcome.source_wins:
            self._set_lost_result(version, survivor, outcome)
            return
        try:
            revive(kind, survivor, version.reading, self._batch.known)
        except PayloadError as error:
            defer_late(self._batch, version, error)

    def _merge_rows(self, version: Version) -> None:
        kind, recorder, key = self._kind, self._recorder, version.other_key
        duplicate = recorder.ensure_stamped(key)
        instance = read_instances(kind, [key]).get(key)
        local_state = recorder.local_state(duplicate)
        if instance is None or local_state is None or duplicate.uuid == version.entry.uuid:
            error = PayloadError(f"It is the same thing as {kind.name}('{key}'), which cannot be taken now.")
            defer_late(self._batch, version, error)
            return
        merge = DuplicateMerge(
            kind=kind,
            entry=version.entry,
            reading=version.reading,
            duplicate=duplicate,
            instance=instance,
            known=self._batch.known,
        )
        try:
            with transaction.atomic(using=kind.database):
                outcome = merge.merge(local_state, recorder.source, recorder.target)
        except PayloadError as error:
            defer_late(self._batch, version, error)
            return
        recorder.has_recorded = True
        self.conflicts += merge.is_conflict
        if not outcome.source_wins:
            self._set_lost_result(version, duplicate, outcome)

    def _set_lost_result(self, version: Version, survivor: TrackedResource, outcome: Resolution) -> None:
        self._batch.results[version.entry.uuid] = lost_result(self._kind, version.entry, survivor, outcome)
