"""Entries that cannot be applied: kept as they came, tried again, forgotten when something newer comes."""

import logging
from collections.abc import Collection, Sequence
from functools import partial

from django.db import connections, transaction
from django.db.models import QuerySet
from django.utils import timezone

from ..atom.payload import Payload
from ..atom.text import replace_forbidden
from ..exceptions import PayloadError
from ..models import DeferredEntry, TrackedResource
from ..registry import registry
from ..resources import SyncResource
from .changes import RowChange, prepare_row
from .digests import lock_digest
from .isolation import atomically_by_row, row_guard
from .log import update_tracked
from .prepared import PreparedQuery
from .relations.placing import Known, Target
from .relations.settling import fill_in, is_waiting, kinds_waiting_for, store_pending
from .rows import read_instances
from .scopes import owe_again
from .writing import write_rows

logger = logging.getLogger(__name__)

#: How many are tried again after a page; those that were tried least come first.
RETRIES_PER_PAGE = 100

_any_deferred: PreparedQuery[DeferredEntry] = PreparedQuery(
    lambda kind: DeferredEntry.objects.filter(resource__kind=kind).order_by().values_list("pk")[:1], str
)
_deletions: PreparedQuery[DeferredEntry] = PreparedQuery(
    lambda: (
        DeferredEntry.objects.filter(is_deleted=True, is_discarded=False)
        .order_by()
        .values_list("resource__kind", flat=True)
        .distinct()
    )
)


def defer(
    resource: SyncResource,
    tracked: TrackedResource,
    error: PayloadError,
    payload: Payload | None,
    *,
    is_deleted: bool,
) -> None:
    """Keep a version that could not be written; ``tracked`` is stored and has the version's state."""
    logger.warning("%s %s is deferred: %s", resource.kind, tracked.uuid, error)
    text = payload.xml(uuid=str(tracked.uuid)) if payload is not None and not is_deleted else ""
    store_pending(resource, {tracked.pk: awaited(error)}, replaced=[tracked.pk])
    DeferredEntry.objects.using(resource.database).update_or_create(
        resource=tracked,
        defaults={
            "is_deleted": is_deleted,
            "payload": text,
            "application_code": error.application_code,
            "reason": replace_forbidden(str(error)),  # it may quote what no database holds
            "payload_path": error.payload_path[:300],
            "received_at": timezone.now(),
            "attempts": 1,
            "is_discarded": False,
        },
    )


def forget(resource: SyncResource, tracked: Sequence[TrackedResource]) -> None:
    """Drop the entries that newer versions have replaced."""
    if tracked:
        DeferredEntry.objects.using(resource.database).filter(resource__in=[row.pk for row in tracked]).delete()


def awaited(error: PayloadError) -> dict[str, list[Target]]:
    """Return what a whole entry waits for, as ``store_pending`` takes it."""
    return {"": list(error.waits_for)} if error.waits_for else {}


def settle(resource: SyncResource) -> int:
    """Fill in the references that have come, and try the deferred entries again; return how many could be applied.

    In the transaction of the page, under the digest's lock. Their states stay what they are: to apply is not
    to change.
    """
    applied = 0
    while ready := fill_in(resource):  # what is written now may be what others wait for
        written = _retry(resource, ready)
        applied += written
        if not written:
            break
    if _any_deferred.rows(resource.database, resource.kind):
        # Not those with a local edit that is not numbered yet: that edit overrules what waits.
        tracked = TrackedResource.objects.using(resource.database).filter(
            kind=resource.kind, is_deferred=True, mark__isnull=True, deferred_entry__is_discarded=False
        )
        # Nor those whose time comes with what they refer to.
        free = tracked.filter(pending_references__isnull=True)
        least_tried = free.order_by("deferred_entry__attempts", "pk").values_list("pk", flat=True)
        applied += _retry(resource, list(least_tried[:RETRIES_PER_PAGE]))
    return applied


def settle_waiting(resource: SyncResource) -> None:
    """Do the same if anything waits, in a transaction of its own: something may have changed here meanwhile."""
    waits = _any_deferred.rows(resource.database, resource.kind) or is_waiting(resource)
    if not waits:
        return
    if atomically_by_row(resource.database, partial(_settle_under_lock, resource)):
        settle_others(resource)


def _settle_under_lock(resource: SyncResource) -> int:
    lock_digest(resource)
    return settle(resource)


def settle_all(resource: SyncResource) -> None:
    """Do what is to be done when a row of ``resource`` has got a uuid that others may have waited for."""
    settle_waiting(resource)
    settle_others(resource)


def settle_others(resource: SyncResource) -> None:
    """Do the same for the other kinds that wait for something of ``resource``; each in a transaction of its own."""
    waiting = set(kinds_waiting_for(resource))
    # A deletion may have been refused because of what pointed at the row, and does not any more.
    waiting.update(kind for (kind,) in _deletions.rows(resource.database))
    for kind in sorted(waiting - {resource.kind}):
        other = registry.of_kind(kind)
        if other is None:
            continue
        if atomically_by_row(other.database, partial(_settle_under_lock, other)):
            settle_others(other)


def retry_chosen(resource: SyncResource, entries: Collection[int]) -> int:
    """Try the deferred ``entries``, primary keys, again because somebody wishes so; return how many were applied."""
    if not entries:
        return 0
    with transaction.atomic(using=resource.database):
        lock_digest(resource)
        tracked = TrackedResource.objects.using(resource.database).filter(
            kind=resource.kind, is_deferred=True, mark__isnull=True, deferred_entry__in=list(entries)
        )
        return _retry(resource, list(tracked.values_list("pk", flat=True)))


def discard(entries: QuerySet[DeferredEntry]) -> int:
    """Leave ``entries`` alone from now on, and return how many there were."""
    return entries.update(is_discarded=True)


def _retry(resource: SyncResource, pks: list[int]) -> int:
    chosen = TrackedResource.objects.using(resource.database).filter(pk__in=pks).order_by("pk")
    if connections[resource.database].features.has_select_for_update:
        chosen = chosen.select_for_update()
    locked = {row.pk: row for row in chosen}
    entries = DeferredEntry.objects.using(resource.database).filter(resource__in=list(locked))
    return sum(_retry_one(resource, entry, locked[entry.resource_id]) for entry in entries)


def _retry_one(resource: SyncResource, entry: DeferredEntry, tracked: TrackedResource) -> bool:
    try:
        with row_guard(resource.database):
            change, extra = _change(resource, entry, tracked.local_key)
            write_rows(resource, [change])
        error = change.error
    except PayloadError as raised:
        error = raised
    if error is not None:
        entry.attempts += 1
        entry.reason, entry.payload_path = replace_forbidden(str(error)), error.payload_path[:300]
        entry.save(using=resource.database)
        store_pending(resource, {tracked.pk: awaited(error)}, replaced=[tracked.pk])
        return False
    tracked.is_deferred, tracked.is_incomplete = False, bool(change.pending)
    tracked.is_deleted = entry.is_deleted
    tracked.local_key = None if entry.is_deleted else str(change.instance.pk)
    tracked.extra = extra
    tracked.etag = "" if entry.is_deleted else resource.etag(change.texts, extra)
    update_tracked(resource.database, [tracked], with_marks=False)
    store_pending(resource, {tracked.pk: change.pending}, replaced=[tracked.pk])
    entry.delete(using=resource.database)
    owe_again(resource, tracked)
    return True


def _change(resource: SyncResource, entry: DeferredEntry, key: str | None) -> tuple[RowChange, str]:
    instance = read_instances(resource, [key] if key else []).get(key or "")
    if entry.is_deleted:
        is_withdrawal = entry.application_code == PayloadError.WITHDRAWN
        change = RowChange(instance=instance or resource.model(), is_deletion=True, is_withdrawal=is_withdrawal)
        return change, ""
    if not entry.payload:
        raise PayloadError("Expected a payload, found none.")
    reading = resource.read_payload(Payload.from_xml(entry.payload))
    return prepare_row(resource, instance, reading, Known()), reading.extra
