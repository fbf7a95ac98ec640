"""Conflicts beyond the rules: the application's own word, the record for people, choosing the other version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import models, transaction
from django.utils import timezone

from ..atom.entry import Entry
from ..atom.payload import Payload
from ..conflicts import Conflict, ConflictVersion, Decision
from ..core.decision import Resolution
from ..core.state import SyncState
from ..exceptions import PayloadError
from ..models import ConflictRecord, TrackedResource
from ..resources import SyncResource
from .changes import prepare_row
from .digests import lock_digest
from .faults import ends_page
from .linking import survivor_of
from .local_version import LocalVersion
from .relations.inside import write_inside
from .relations.placing import Known
from .rows import read_instances
from .writing import write_rows

logger = logging.getLogger(__name__)


def ask_application(
    resource: SyncResource,
    entry: Entry,
    held: SyncState,
    local: LocalVersion,
    remote: Mapping[str, Any] | None,
    outcome: Resolution,
) -> Decision:
    """Return what the application's ``resolve`` says, ``None`` where it leaves it to the rules or fails."""
    conflict = Conflict(
        kind=resource.kind,
        uuid=entry.uuid,
        local=ConflictVersion(state=held, values=local.values),
        remote=ConflictVersion(state=entry.state, values=remote),
        remote_wins=outcome.source_wins,
        rule=outcome.by,
    )
    try:
        decision = resource.resolve(conflict)
    except Exception as error:
        if ends_page(error):
            raise
        # The page must not wait for somebody to mend the application: the rules decide, and it is said.
        logger.exception("resolve() of %r failed; the rules decide", resource)
        return None
    if decision is None or decision in ("local", "remote"):
        return decision
    if isinstance(decision, Mapping) and set(decision) <= set(resource.columns):
        return decision
    logger.error(
        "resolve() of %r must return 'local', 'remote', None or values of %s; it returned %r. The rules decide.",
        resource,
        ", ".join(resource.columns),
        decision,
    )
    return None


def record_of(
    tracked: TrackedResource, entry: Entry, held: SyncState, local: LocalVersion, *, remote_won: bool, rule: str
) -> ConflictRecord:
    """Return the record of a decision, not stored yet."""
    remote = "" if entry.is_deleted or entry.payload is None else entry.payload.xml(uuid=str(entry.uuid))
    return ConflictRecord(
        resource=tracked,
        decided_at=timezone.now(),
        remote_won=remote_won,
        rule=rule,
        local_endpoint=held.endpoint,
        local_stamp=held.stamp,
        local_user=held.user[:150],
        local_payload=local.payload,
        remote_endpoint=entry.state.endpoint,
        remote_stamp=entry.state.stamp,
        remote_user=entry.state.user[:150],
        remote_payload=remote,
    )


def use_other_version(resource: SyncResource, record: ConflictRecord) -> None:
    """Write the version that did not stay into the row: a change of this node like any other.

    Raises:
        PayloadError: it cannot be written.
        ValidationError: the model refuses it.
    """
    database = resource.database
    with transaction.atomic(using=database):
        lock_digest(resource)
        tracked = survivor_of(resource, TrackedResource.objects.using(database).get(pk=record.resource_id))
        key = tracked.local_key
        instance = read_instances(resource, [key] if key else []).get(key or "")
        if not record.losing_payload:
            if instance is not None:
                instance.delete(using=database)
        else:
            _write(resource, tracked, instance, record.losing_payload)
        ConflictRecord.objects.using(database).filter(pk=record.pk).update(overruled_at=timezone.now())


def _write(resource: SyncResource, tracked: TrackedResource, instance: models.Model | None, payload: str) -> None:
    change = prepare_row(resource, instance, resource.read_payload(Payload.from_xml(payload)), Known())
    if change.pending:
        raise PayloadError("It refers to something that is not here.")
    instance = change.instance
    instance.full_clean(exclude=[f.name for f in instance._meta.fields if f.attname not in change.names])
    instance.save(using=resource.database, force_insert=change.is_new)
    write_inside(resource, [change], write_rows)
    if change.is_new:
        # It comes back to life under the name that everybody knows it by.
        _adopt(resource, tracked.uuid, str(instance.pk))


def _adopt(resource: SyncResource, uuid: UUID, key: str) -> None:
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind)
    marked = rows.get(local_key=key)
    mark, user = marked.mark, marked.mark_user
    marked.delete()
    adopted = rows.filter(uuid=uuid).update(local_key=key, is_deleted=False, mark=mark, mark_user=user)
    if not adopted:
        raise PayloadError("The resource is not tracked any more.")
