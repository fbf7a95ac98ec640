"""Store received versions that cannot be written, retry them, and delete them when a newer version arrives."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef, Q, QuerySet

from ...atom.payload import Payload
from ...core.state import SyncState
from ...exceptions import DeletionWaits, MassDeletion, OutOfPart, PayloadError, StampAhead
from ...models import DeferredEntry, DeletionCondition, PendingReference, TrackedResource
from ...registry import registry
from ...relations import Reading
from ...turns import write_transaction
from ...users import current_user
from ..bounds import latest_stamp
from ..db.clock import now
from ..db.faults import is_lost_connection
from ..db.isolation import atomically_by_row, row_guard
from ..db.prepared import PreparedQuery
from ..db.statements import locked
from ..log.digests import lock_digest
from ..log.events import send_signals
from ..log.keys import key_of
from ..log.suppression import receiving_from
from ..log.tracked import update_tracked
from ..log.wakeup import wake_after_commit
from ..scope import RowScope, resend_again, row_scope
from .aside import await_targets, is_overtaken, mark_applied, reason_columns, received_columns, send_ours, waits
from .boundary import check_reading
from .cascade import kinds_within_reach, without_referrers
from .conditions import Condition, forget_met_conditions
from .pending import fill_in, is_waiting, kinds_waiting_for, store_pending
from .resolve import ReferenceCache, RowAction, RowChange, Target, prepare_row
from .rows import read_instances_apart, unreadable_row
from .write.writer import write_rows

if TYPE_CHECKING:
    from ...kind import Kind
    from ...models import Peer

logger = logging.getLogger(__name__)

#: The maximum number of entries that are retried after a page; entries with the fewest attempts come first.
RETRIES_PER_PAGE = 100
#: The maximum number of deletions that are retried together.
BATCH = 500

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
    kind: Kind,
    tracked: TrackedResource,
    error: PayloadError,
    payload: Payload | None,
    *,
    is_deleted: bool,
) -> None:
    """Store a version that could not be written and set ``is_deferred``; ``tracked`` has the version's sync state."""
    condition = _stored_condition(error, kind.database)
    # A deletion that waits for changes of its source is normal: no warning.
    logger.log(
        logging.WARNING if condition is None else logging.INFO,
        "%s %s is deferred: %s",
        kind.name,
        tracked.uuid,
        error,
    )
    store_pending(kind, {tracked.pk: awaited(error)}, replaced=[tracked.pk])
    DeferredEntry.objects.using(kind.database).update_or_create(
        resource=tracked,
        defaults={
            **received_columns(tracked.uuid, payload, error, is_deleted=is_deleted),
            "attempts": 1,
            "is_discarded": False,
            "condition_id": condition,
            "is_aside": False,
            "peer": None,
        },
    )
    if not tracked.is_deferred:
        TrackedResource.objects.using(kind.database).filter(pk=tracked.pk).update(is_deferred=True)
        tracked.is_deferred = True


def _stored_condition(error: PayloadError, using: str) -> int | None:
    """Return the primary key of a deletion's condition, which is stored once for all deletions of a page."""
    if not isinstance(error, DeletionWaits):
        return None
    condition = error.condition
    # The condition may have been deleted since, with the last entry that had it.
    if not DeletionCondition.objects.using(using).filter(pk=condition.pk or 0).exists():
        condition.pk = condition.store(using)
    return int(condition.pk)


def forget(kind: Kind, tracked: Sequence[TrackedResource]) -> None:
    """Delete the deferred entries of ``tracked`` and clear ``is_deferred``."""
    if tracked:
        pks = [row.pk for row in tracked]
        DeferredEntry.objects.using(kind.database).filter(resource__in=pks).delete()
        TrackedResource.objects.using(kind.database).filter(pk__in=pks).update(is_deferred=False)
        for row in tracked:
            row.is_deferred = False
        forget_met_conditions(kind.database)


def awaited(error: PayloadError) -> dict[str, list[Target]]:
    """Return the missing targets of a deferred entry in the form that ``store_pending`` takes."""
    return {"": list(error.waits_for)} if error.waits_for else {}


def retry_deferred(kind: Kind, *, is_alone: bool = False) -> int:
    """Write pending references whose targets have arrived, and retry deferred entries; return the number applied.

    The caller holds the digest's lock. The sync states stay the same, because writing a received version is no change
    of this node. Entries that failed at a commit are retried only with ``is_alone``, in a transaction of their own.
    """
    applied = 0
    while ready := fill_in(kind):  # another entry may wait for a row that is written now
        written = _retry(kind, ready)
        applied += written
        if not written:
            break
    if _any_deferred.rows(kind.database, kind.name):
        # Without rows that have a local edit without a tick: the edit overrules the deferred version.
        tracked = TrackedResource.objects.using(kind.database).filter(
            waits, kind=kind.name, mark__isnull=True, deferred_entry__is_discarded=False
        )
        # Without entries that wait for targets or for a condition: these are retried when those arrive.
        free = tracked.filter(pending_references__isnull=True, deferred_entry__condition__isnull=True)
        ahead = Q(stamp__gt=latest_stamp(now())) | Q(deferred_entry__stamp__gt=latest_stamp(now()))
        free = free.exclude(ahead, deferred_entry__application_code=StampAhead.application_code)
        decided_by_people = (OutOfPart.application_code, MassDeletion.application_code)
        free = free.exclude(deferred_entry__application_code__in=decided_by_people)
        if not is_alone:
            free = free.exclude(deferred_entry__application_code=PayloadError.AT_COMMIT)
        least_tried = free.order_by("deferred_entry__attempts", "pk").values_list("pk", flat=True)
        applied += _retry(kind, list(least_tried[:RETRIES_PER_PAGE]))
        applied += _retry_deletions(kind)
    return applied


def _retry_deletions(kind: Kind) -> int:
    """Retry the deferred deletions whose condition is met or does not matter any more; return the number applied."""
    entries = deferred_entries(kind).filter(resource__mark__isnull=True, is_deleted=True, condition__isnull=False)
    if not entries.exists():
        return 0
    stored = DeletionCondition.objects.using(kind.database).filter(entries__in=entries).distinct()
    conditions = {row.pk: Condition.load(row) for row in stored}
    met = [pk for pk, condition in conditions.items() if not condition.lacking(condition.seen)]
    ready = entries.filter(condition__in=met).order_by("attempts", "pk")
    applied = _retry_batch(kind, _free_entries(kind, entries.exclude(condition__in=met)), conditions)
    # Entries with the fewest attempts come first. If none of a batch succeeds, later ones have failed before.
    while met and (batch := list(ready[: BATCH if applied else RETRIES_PER_PAGE])):
        succeeded = _retry_batch(kind, batch, conditions)
        applied += succeeded
        if not succeeded:
            break
    if applied:
        forget_met_conditions(kind.database)
    return applied


def retry_waiting(kind: Kind) -> None:
    """Fill in references and retry deferred entries of ``kind``, if there are any, in a new transaction."""
    waits = _any_deferred.rows(kind.database, kind.name) or is_waiting(kind)
    if not waits:
        return
    if atomically_by_row(kind.database, partial(_retry_under_lock, kind)):
        retry_others(kind)


def _retry_under_lock(kind: Kind) -> int:
    lock_digest(kind)
    return retry_deferred(kind, is_alone=True)


def retry_all(kind: Kind) -> None:
    """Retry the entries of all kinds that may have waited for a row of ``kind``."""
    retry_waiting(kind)
    retry_others(kind)


def retry_others(kind: Kind) -> None:
    """Retry the entries of the other kinds that wait for ``kind``, each kind in a new transaction."""
    waiting = set(kinds_waiting_for(kind))
    # A deletion may have been refused because of references to the row that are gone now.
    deleted = (registry.of_kind(kind_name) for (kind_name,) in _deletions.rows(kind.database))
    waiting.update(other.name for other in deleted if other is not None and _may_free(kind, other))
    for kind_name in sorted(waiting - {kind.name}):
        other = registry.of_kind(kind_name)
        if other is None:
            continue
        try:
            if atomically_by_row(other.database, partial(_retry_under_lock, other)):
                retry_others(other)
        except Exception as error:
            if is_lost_connection(error):
                raise
            logger.exception("%s: deferred entries could not be retried; they are retried later", kind_name)


def _may_free(kind: Kind, other: Kind) -> bool:
    """Return True if a change of ``kind`` may make a deferred deletion of ``other`` possible."""
    refers = other.name in registry.kinds_referred_to(kind)
    return refers or kind.name in kinds_within_reach(other)


def retry_chosen(kind: Kind, entries: Collection[int]) -> int:
    """Retry the deferred ``entries`` (primary keys) at an administrator's request; return the number applied."""
    if not entries:
        return 0
    with write_transaction(kind.database):
        lock_digest(kind)
        tracked = TrackedResource.objects.using(kind.database).filter(
            waits, kind=kind.name, mark__isnull=True, deferred_entry__in=list(entries)
        )
        return _retry(kind, list(tracked.values_list("pk", flat=True)), by_administrator=True)


def deferred_entries(kind: Kind) -> QuerySet[DeferredEntry]:
    """Return the deferred entries of ``kind`` that are not discarded."""
    return DeferredEntry.objects.using(kind.database).filter(resource__kind=kind.name, is_discarded=False)


def incomplete_rows(kind: Kind) -> QuerySet[TrackedResource]:
    """Return the resources of ``kind`` whose rows lack references to resources that have not arrived.

    A reference to a resource that was deleted does not count: the row lacks it at every node.
    """
    rows = TrackedResource.objects.using(kind.database)
    # The kind of a reference may be that of a parent model. All kinds are named, for the index.
    deleted = rows.filter(kind__in=[each.name for each in registry], uuid=OuterRef("uuid"), is_deleted=True)
    pending = PendingReference.objects.using(kind.database).filter(~Exists(deleted), resource__kind=kind.name)
    return rows.filter(pk__in=pending.exclude(name="").values("resource"))


def held_back_rows(kind: Kind) -> QuerySet[TrackedResource]:
    """Return the resources of ``kind`` with a change that cannot be sent."""
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name, mark__isnull=False)
    return rows.exclude(problem="")


def waiting_resources(kind: Kind) -> tuple[QuerySet[TrackedResource], ...]:
    """Return the resources that differ from what the digest says: deferred, incomplete, and held back ones.

    A resource may be in two of the three.
    """
    deferred = TrackedResource.objects.using(kind.database).filter(pk__in=deferred_entries(kind).values("resource"))
    return deferred, incomplete_rows(kind), held_back_rows(kind)


def count_waiting(kind: Kind, peer: Peer | None = None) -> int:
    """Return the number of ``waiting_resources``; with ``peer``, of those that it has of its part of the rows."""
    sets = waiting_resources(kind)
    if peer is not None:
        sets = tuple(rows.filter(scopes__peer=peer.pk) for rows in sets)
    return len({pk for rows in sets for pk in rows.values_list("pk", flat=True)})


def discard(entries: QuerySet[DeferredEntry]) -> int:
    """Discard the deferred ``entries``: they are not retried; return their number.

    Of an entry that is kept aside, the peer that has sent it gets the version of this node.
    """
    for entry in entries.filter(is_aside=True, is_discarded=False).select_related("resource", "peer"):
        kind = registry.of_kind(entry.resource.kind)
        if kind is not None:
            send_ours(kind, entry.resource, entry.peer)
    return entries.update(is_discarded=True)


def _keys(rows: Iterable[TrackedResource]) -> list[str]:
    return [row.local_key for row in rows if row.local_key is not None]


def _free_entries(kind: Kind, entries: QuerySet[DeferredEntry]) -> list[DeferredEntry]:
    """Return those of ``entries``, deletions with an unmet condition, whose rows no row refers to any more."""
    chosen = list(entries.select_related("resource").order_by("attempts", "pk")[:BATCH])
    instances, _ = read_instances_apart(kind, _keys(entry.resource for entry in chosen))
    free = {key_of(instance) for instance in without_referrers(kind, list(instances.values()))}
    return [entry for entry in chosen if entry.resource.local_key in free]


def _read_locked(kind: Kind, pks: Sequence[int]) -> dict[int, TrackedResource]:
    chosen = TrackedResource.objects.using(kind.database).filter(pk__in=pks).order_by("pk")
    return {row.pk: row for row in locked(chosen, kind.database)}


def _retry_batch(kind: Kind, entries: Sequence[DeferredEntry], conditions: Mapping[int, Condition | None]) -> int:
    """Retry deletions together; return the number applied. Without ``conditions`` an administrator has decided."""
    rows = _read_locked(kind, [entry.resource_id for entry in entries])
    entries = [entry for entry in entries if rows[entry.resource_id].mark is None]
    if conditions:  # not for an administrator, who decides about the present row
        entries = [entry for entry in entries if not is_overtaken(kind, entry, rows[entry.resource_id])]
    instances, unreadable = read_instances_apart(kind, _keys(rows.values()))
    changes: dict[int, RowChange] = {}
    for entry in entries:
        tracked = rows[entry.resource_id]
        instance = instances.get(tracked.row_key)
        if instance is not None:
            state = _state_of(kind, tracked)
            condition = conditions.get(entry.condition_id or 0)
            part = _part_of(kind, entry) if conditions else None
            changes[entry.pk] = RowChange(
                instance=instance, action=RowAction.DELETE, condition=condition, state=state, part=part
            )
    write_rows(kind, list(changes.values()))
    applied = 0
    for entry in entries:
        tracked = rows[entry.resource_id]
        change = changes.get(entry.pk)
        if tracked.local_key in unreadable:
            _store_failure(kind, entry, tracked, PayloadError(unreadable[tracked.local_key]))
        elif change is not None and change.error is not None:
            _store_failure(kind, entry, tracked, change.error)
        else:
            _store_applied(kind, entry, tracked, change, "")
            applied += 1
    return applied


def _state_of(kind: Kind, tracked: TrackedResource) -> SyncState | None:
    if tracked.endpoint is None or tracked.tick is None:
        return None
    return SyncState(endpoint=tracked.endpoint.url, tick=tracked.tick, stamp=tracked.stamp, user=tracked.user)


def _chosen_deletions(kind: Kind, entries: Collection[int]) -> QuerySet[DeferredEntry]:
    """Return the deletions among ``entries`` that are no withdrawals, and whose rows have no edit without a tick."""
    deletions = DeferredEntry.objects.using(kind.database).exclude(application_code=PayloadError.WITHDRAWN)
    return deletions.filter(
        pk__in=list(entries), resource__kind=kind.name, resource__mark__isnull=True, is_deleted=True
    )


def apply_deletions(kind: Kind, entries: Collection[int]) -> int:
    """Apply the deferred deletions ``entries`` (primary keys) with the rows that they delete; return their number.

    The deletion of those other rows is a change of this node and recorded as a conflict. Rows with an edit without a
    tick are skipped: call ``assign_ticks`` before.
    """

    def act() -> int:
        lock_digest(kind)
        chosen = _chosen_deletions(kind, entries)
        return _retry_batch(kind, list(chosen), {})

    applied = atomically_by_row(kind.database, act)
    retry_all(kind)
    return applied


def with_mass_deletions(entries: Collection[DeferredEntry]) -> list[DeferredEntry]:
    """Return ``entries`` and every entry of the mass deletions that they belong to.

    A mass deletion is applied or refused as a whole.
    """
    chosen = {entry.pk: entry for entry in entries}
    for entry in entries:
        if entry.application_code == MassDeletion.application_code:
            same = DeferredEntry.objects.using(entry._state.db).filter(
                application_code=entry.application_code,
                login=entry.login,
                resource__kind=entry.resource.kind,
                is_discarded=False,
            )
            chosen.update((other.pk, other) for other in same.select_related("resource"))
    return list(chosen.values())


def keep_rows(kind: Kind, entries: Collection[int]) -> int:
    """Keep the rows of the deferred deletions ``entries``, as changes of this node; return their number."""
    with write_transaction(kind.database):
        lock_digest(kind)
        chosen = _chosen_deletions(kind, entries).filter(resource__local_key__isnull=False)
        rows = [entry.resource for entry in chosen.select_related("resource")]
        forget(kind, rows)
        TrackedResource.objects.using(kind.database).filter(pk__in=[row.pk for row in rows]).update(
            restamp=True, mark=now(), is_intent=False, mark_user=current_user()
        )
    wake_after_commit(kind.name, kind.database)
    return len(rows)


def _retry(kind: Kind, pks: list[int], *, by_administrator: bool = False) -> int:
    rows = _read_locked(kind, pks)
    entries = DeferredEntry.objects.using(kind.database).filter(resource__in=list(rows))
    return sum(_retry_one(kind, entry, rows[entry.resource_id], by_administrator=by_administrator) for entry in entries)


def _part_of(kind: Kind, entry: DeferredEntry) -> RowScope | None:
    """Return the bounds with which an entry is retried: those of the peer that has sent it."""
    return row_scope(kind, entry.peer) if entry.is_aside else None


def _retry_one(kind: Kind, entry: DeferredEntry, tracked: TrackedResource, *, by_administrator: bool) -> bool:
    if not by_administrator and is_overtaken(kind, entry, tracked):
        return False
    try:
        with row_guard(kind.database), receiving_from(""):  # not from the source of the page that is applied now
            change, reading = _change(kind, entry, tracked.local_key)
            change.uuid = tracked.uuid
            part = None if by_administrator else _part_of(kind, entry)
            if part is not None:
                change.part = part
                check_reading(part, tracked, None if change.is_new else change.instance, reading)
            write_rows(kind, [change])
        error = change.error
    except PayloadError as raised:
        error = raised
    if error is not None:
        _store_failure(kind, entry, tracked, error)
        return False
    _store_applied(kind, entry, tracked, change, reading.extra)
    return True


def _store_failure(kind: Kind, entry: DeferredEntry, tracked: TrackedResource, error: PayloadError) -> None:
    entry.attempts += 1
    why = reason_columns(error)
    entry.reason, entry.payload_path = why["reason"], why["payload_path"]
    if entry.application_code != PayloadError.WITHDRAWN:
        entry.application_code = error.application_code
    entry.condition_id = _stored_condition(error, kind.database) or entry.condition_id
    entry.save(using=kind.database)
    if entry.is_aside:
        await_targets(kind, tracked, error)
    else:
        store_pending(kind, {tracked.pk: awaited(error)}, replaced=[tracked.pk])


def _store_applied(
    kind: Kind, entry: DeferredEntry, tracked: TrackedResource, change: RowChange | None, extra: str
) -> None:
    pending = {} if change is None else change.pending
    tracked.is_deleted, tracked.extra = entry.is_deleted, extra
    if entry.is_deleted or change is None:
        tracked.local_key, tracked.etag = None, ""
    else:
        tracked.local_key, tracked.etag = change.local_key, kind.etag(change.texts, extra)
    update_tracked(kind.database, [tracked], with_marks=False)
    store_pending(kind, {tracked.pk: pending}, replaced=[tracked.pk])
    forget(kind, [tracked])
    if entry.is_aside:
        mark_applied(kind, tracked, entry.user)
    resend_again(kind, tracked)
    send_signals(kind, [], [(tracked, False)])


def _change(kind: Kind, entry: DeferredEntry, key: str | None) -> tuple[RowChange, Reading]:
    instances, unreadable = read_instances_apart(kind, [] if key is None else [key])
    if key in unreadable:
        raise unreadable_row(key, unreadable[key])
    instance = None if key is None else instances.get(key)
    if entry.is_deleted:
        is_withdrawal = entry.application_code == PayloadError.WITHDRAWN
        action = RowAction.WITHDRAW if is_withdrawal else RowAction.DELETE
        return RowChange(instance=instance or kind.model(), action=action), Reading({})
    if not entry.payload:
        raise PayloadError("Expected a payload, found none.")
    reading = kind.decode(Payload.from_xml(entry.payload))
    return prepare_row(kind, instance, reading, ReferenceCache()), reading
