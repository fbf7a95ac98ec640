"""Decide conflicts by the rules and by ``SyncResource.resolve``; record both versions; write the losing one later."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models
from django.utils import timezone

from ...atom.payload import Payload
from ...conflicts import Conflict, ConflictVersion, Decision
from ...core.decision import Resolution, Rule, resolve
from ...exceptions import PayloadError
from ...models import ConflictRecord, TrackedResource
from ...turns import write_transaction
from ..bounds import believed_stamp
from ..content.contents import LocalVersion, merged, value_of
from ..content.resolve import ReferenceCache, RowAction, RowChange, prepare_row, set_attributes
from ..content.rows import read_instances
from ..content.write.nested import write_inside
from ..content.write.writer import delete_row, write_rows
from ..db.faults import ends_page
from ..db.isolation import row_guard
from ..identity.link import survivor_of
from ..log.digests import lock_digest
from ..log.keys import key_of
from ..log.suppression import present_sender
from .batch import Plan

if TYPE_CHECKING:
    from ...atom.entry import Entry
    from ...core.state import SyncState
    from ...kind import Kind
    from .batch import Batch, Version
    from .recorder import Recorder

logger = logging.getLogger(__name__)


def ask_application(
    kind: Kind,
    entry: Entry,
    local_state: SyncState,
    local: LocalVersion,
    remote: Mapping[str, Any] | None,
    outcome: Resolution,
) -> Decision:
    """Return the decision of the application's ``resolve``, or ``None`` if the rules are to decide or it fails."""
    conflict = Conflict(
        kind=kind.name,
        uuid=entry.uuid,
        local=ConflictVersion(state=local_state, values=local.values),
        remote=ConflictVersion(state=entry.state, values=remote),
        remote_wins=outcome.source_wins,
        rule=outcome.by,
    )
    try:
        decision = kind.declared.resolve(conflict)
    except Exception as error:
        if ends_page(error):
            raise
        # An error of the application must not block the page: the rules decide, and the error is logged.
        logger.exception("resolve() of %r failed; the rules decide", kind)
        return None
    if decision is None or decision in ("local", "remote"):
        return decision
    if isinstance(decision, Mapping) and set(decision) <= set(kind.columns):
        return decision
    logger.error(
        "resolve() of %r must return 'local', 'remote', None or values of %s; it returned %r. The rules decide.",
        kind,
        ", ".join(kind.columns),
        decision,
    )
    return None


def outcome_of(decision: Decision, by_rules: Resolution) -> Resolution:
    """Return the outcome of a ``decision`` of the application; without one, that of the rules."""
    if decision is None:
        return by_rules
    source_wins = decision != "local"
    is_own = isinstance(decision, Mapping) or source_wins != by_rules.source_wins
    return Resolution(source_wins=source_wins, by=Rule.APPLICATION, record=by_rules.record or is_own)


def record_of(
    tracked: TrackedResource, entry: Entry, local_state: SyncState, local: LocalVersion, *, remote_won: bool, rule: str
) -> ConflictRecord:
    """Return the record of a decision; the caller stores it."""
    remote = "" if entry.is_deleted or entry.payload is None else entry.payload.xml(uuid=str(entry.uuid))
    return ConflictRecord(
        resource=tracked,
        decided_at=timezone.now(),
        remote_won=remote_won,
        rule=rule,
        local_endpoint=local_state.endpoint,
        local_stamp=local_state.stamp,
        local_user=local_state.user[:150],
        local_payload=local.payload,
        remote_endpoint=entry.state.endpoint,
        remote_stamp=entry.state.stamp,
        remote_user=entry.state.user[:150],
        remote_payload=remote,
        login=present_sender(),
    )


def use_other_version(kind: Kind, record: ConflictRecord) -> None:
    """Write the version that has lost a conflict into the row, as a change of this node.

    Raises:
        PayloadError: the version cannot be decoded or written, or it refers to a resource without a row here.
        ValidationError: the model refuses the version.
    """
    database = kind.database
    with write_transaction(database):
        lock_digest(kind)
        tracked = survivor_of(kind, TrackedResource.objects.using(database).get(pk=record.resource_id))
        key = tracked.local_key
        instance = None if key is None else read_instances(kind, [key]).get(key)
        if not record.losing_payload:
            if instance is not None:
                delete_row(kind, instance)
        else:
            _write(kind, tracked, instance, record.losing_payload)
        ConflictRecord.objects.using(database).filter(pk=record.pk).update(overruled_at=timezone.now())


def _write(kind: Kind, tracked: TrackedResource, instance: models.Model | None, payload: str) -> None:
    change = prepare_row(kind, instance, kind.decode(Payload.from_xml(payload)), ReferenceCache())
    if change.pending:
        raise PayloadError("The version refers to a resource that this node does not have.")
    instance = change.instance
    if kind.declared.validate:
        instance.full_clean(exclude=[f.name for f in instance._meta.fields if f.attname not in change.names])
    instance.save(using=kind.database, force_insert=change.is_new)
    write_inside(kind, [change], write_rows)
    if change.is_new:
        # The row comes back under the uuid that all nodes know.
        _adopt(kind, tracked.uuid, key_of(instance))


def _adopt(kind: Kind, uuid: UUID, key: str) -> None:
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    marked = rows.get(local_key=key)
    mark, user = marked.mark, marked.mark_user
    marked.delete()
    adopted = rows.filter(uuid=uuid).update(local_key=key, is_deleted=False, mark=mark, mark_user=user)
    if not adopted:
        raise PayloadError("The TrackedResource has been deleted meanwhile.")


class ConflictResolution:
    """Resolves the conflict of a received version with the local one, of state ``local_state`` and content ``local``.

    Without ``by_priority`` the stamps alone decide.
    """

    def __init__(
        self,
        recorder: Recorder,
        batch: Batch,
        version: Version,
        *,
        local_state: SyncState,
        local: LocalVersion,
        by_priority: bool = True,
    ) -> None:
        self._by_priority = by_priority
        self._kind = recorder.kind
        self._recorder = recorder
        self._batch = batch
        self._version = version
        self._local_state = local_state
        self._local = local

    def decide(self) -> Resolution:
        """Return the outcome, by the rules or by the application, and add its conflict record to the batch.

        A version that the application has merged replaces the received one.
        """
        version, local_state, recorder = self._version, self._local_state, self._recorder
        version.is_concurrent = True
        state, same_content = version.entry.state, self._has_same_content()
        outcome = resolve(
            believed_stamp(state, recorder.now),
            believed_stamp(local_state, recorder.now),
            recorder.source,
            recorder.target,
            same_content=same_content,
            by_priority=self._by_priority,
        )
        if not same_content:
            outcome = self._as_the_application_says(outcome)
            self._record(outcome)
        if version.entry.is_withdrawn and outcome.source_wins:
            # Not recorded for other nodes: the row leaves only this node.
            outcome = replace(outcome, record=False)
        return outcome

    def _has_same_content(self) -> bool:
        version, tracked, entry = self._version, self._version.tracked, self._version.entry
        if tracked.is_deferred or version.plan is Plan.DEFER or tracked.problem:
            return False
        if entry.is_deleted or tracked.is_deleted:
            return entry.is_deleted and tracked.is_deleted
        try:
            with row_guard(self._kind.database, savepoint=False):
                return self._etag() == tracked.etag
        except PayloadError:
            return False

    def _etag(self) -> str:
        kind, version = self._kind, self._version
        assert version.row is not None
        contents = merged(kind, version.reading, self._local.contents)
        return kind.etag(contents, version.reading.extra)

    def _as_the_application_says(self, outcome: Resolution) -> Resolution:
        kind, version, row = self._kind, self._version, self._version.row
        if not kind.decides_itself or version.plan in (Plan.DEFER, Plan.RENAME) or version.tracked.is_deferred:
            return outcome
        remote = None
        if row is not None and not row.is_deletion:
            remote = {name: value_of(row.instance, name) for name in row.names}
        decision = ask_application(kind, version.entry, self._local_state, self._local, remote, outcome)
        if isinstance(decision, Mapping):
            self._merge(decision)
        return outcome_of(decision, outcome)

    def _merge(self, values: Mapping[str, object]) -> None:
        kind, version = self._kind, self._version
        is_new = version.tracked.local_key is None
        if version.row is not None:
            instance = version.row.instance
        else:
            instance = self._batch.instance_of(version.tracked) or kind.model()
        if self._local.values is not None:
            for name, value in self._local.values.items():
                setattr(instance, name, value)
        stored = kind.stored_values(values, is_new=is_new)
        set_attributes(kind, instance, stored)
        version.plan = Plan.WRITE
        action = RowAction.CREATE if is_new else RowAction.UPDATE
        version.row = RowChange(instance=instance, values=stored, action=action)
        version.keep_waiting(kind, ())

    def _record(self, outcome: Resolution) -> None:
        version = self._version
        logger.info(
            "%s %s: conflict between %s and %s, won by the %s (%s)",
            self._kind.name,
            version.entry.uuid,
            version.entry.state,
            self._local_state,
            "source" if outcome.source_wins else "target",
            outcome.by,
        )
        record = record_of(
            version.tracked,
            version.entry,
            self._local_state,
            self._local,
            remote_won=outcome.source_wins,
            rule=str(outcome.by),
        )
        self._batch.conflicts.append(record)
