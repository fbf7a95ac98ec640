"""Two resources that turn out to be one thing: a received one, and a row that has its unique value or was renamed.

Both versions are decided like a conflict. Of the two uuids the smaller stays, at whatever node, and the other becomes
its alias: what two nodes do at the same time comes to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db import models

from ..atom.entry import Entry
from ..core.decision import Resolution, resolve
from ..core.digest import Digest
from ..core.state import SyncState
from ..exceptions import PayloadError
from ..models import ConflictRecord, TrackedResource
from ..relations import Reading
from ..resources import SyncResource
from .changes import RowChange, keep_waiting, prepare_row
from .clock import now
from .disputes import record_of
from .linking import mark_referrers_of_key, release
from .local_version import LocalVersion
from .log import ANEW, tracked_rows
from .relations.contents import merged, waiting_of
from .relations.placing import Known
from .relations.settling import hand_over, store_pending
from .wakeup import wake_after_commit
from .writing import write_rows


@dataclass(kw_only=True, eq=False)
class Union:
    """A received version, and the row that is the same thing. ``twin`` is that row's resource, with a sync state."""

    resource: SyncResource
    entry: Entry
    reading: Reading
    twin: TrackedResource
    instance: models.Model
    known: Known
    is_conflict: bool = False

    def settle(self, held: SyncState, source: Digest, target: Digest) -> Resolution:
        """Make one resource of both, and return whose content it has.

        The received one is stored already, without a row.

        Raises:
            PayloadError: its content cannot be written.
        """
        local = LocalVersion(self.resource, self.twin, self.instance)
        same_content = self._has_same_content(local)
        outcome = resolve(self.entry.state, held, source, target, same_content=same_content)
        if not same_content:
            record = record_of(
                self.twin, self.entry, held, local, remote_won=outcome.source_wins, rule=f"same thing; {outcome.by}"
            )
            ConflictRecord.objects.using(self.resource.database).bulk_create([record])
            self.is_conflict = True
        change = self._written() if outcome.source_wins else None
        etag = "" if change is None else self.resource.etag(change.texts, self.reading.extra)
        if str(self.entry.uuid) < str(self.twin.uuid):
            self._keep_received(etag)
        else:
            self._keep_twin(is_changed=outcome.source_wins and not same_content)
        if change is not None:
            self._wait_for(change)
        wake_after_commit(self.resource.kind, self.resource.database)
        return outcome

    def _has_same_content(self, local: LocalVersion) -> bool:
        change = prepare_row(self.resource, None, self.reading, self.known)
        try:
            contents = merged(self.resource, self.resource.texts_of(change.instance), self.reading, local.contents)
        except PayloadError:
            return False
        return contents == local.contents

    def _written(self) -> RowChange:
        """Write the received content into the row, and return what became of it."""
        change = prepare_row(self.resource, self.instance, self.reading, self.known)
        waiting = waiting_of(self.resource, [self.twin]).get(self.twin.local_key or "", {})
        keep_waiting(self.resource, change, self.reading.related, waiting)
        write_rows(self.resource, [change])
        if change.error is not None:
            raise change.error
        return change

    def _wait_for(self, change: RowChange) -> None:
        """Note what the row waits for with the resource that has it now."""
        owner = tracked_rows(self.resource).get(local_key=self.twin.local_key)
        gone = [self.twin.pk, *self._received().values_list("pk", flat=True)]
        store_pending(self.resource, {owner.pk: change.pending}, replaced=gone)
        tracked_rows(self.resource).filter(pk=owner.pk).update(is_incomplete=bool(change.pending))

    def _keep_received(self, etag: str) -> None:
        key = self.twin.local_key or ""
        release(self.resource, self.twin, replaced_by=self.entry.uuid)
        hand_over(self.resource, self.twin.pk, self._received().get().pk)
        self._received().update(
            local_key=key,
            is_deleted=False,
            replaced_by=None,
            etag=etag or ANEW,
            extra=self.reading.extra if etag else self.twin.extra,
            mark=None if etag else now(),
        )
        mark_referrers_of_key(self.resource, key)

    def _keep_twin(self, *, is_changed: bool) -> None:
        keep_alias(self.resource, self.entry.uuid, self.twin.uuid)
        if is_changed:
            tracked_rows(self.resource).filter(pk=self.twin.pk).update(
                etag=ANEW, extra=self.reading.extra, mark=now(), is_intent=False
            )

    def _received(self) -> models.QuerySet[TrackedResource]:
        return tracked_rows(self.resource).filter(uuid=self.entry.uuid)


def keep_alias(resource: SyncResource, uuid: UUID, survivor: UUID) -> None:
    """Say again, to whoever goes on using it, that ``uuid`` was replaced by that of the ``survivor``."""
    tracked_rows(resource).filter(uuid=uuid).update(
        local_key=None, is_deleted=True, replaced_by=survivor, etag=ANEW, mark=now() - 1
    )


def revive(resource: SyncResource, deleted: TrackedResource, reading: Reading, known: Known) -> None:
    """Bring a deleted resource back to life with the content that came under its old name: a change of ours.

    Raises:
        PayloadError: the content cannot be written.
    """
    change = prepare_row(resource, None, reading, known)
    write_rows(resource, [change])
    if change.error is not None:
        raise change.error
    tracked_rows(resource).filter(pk=deleted.pk).update(
        local_key=str(change.instance.pk),
        is_deleted=False,
        is_incomplete=bool(change.pending),
        etag=ANEW,
        extra=reading.extra,
        mark=now(),
    )
    store_pending(resource, {deleted.pk: change.pending}, replaced=[deleted.pk])
