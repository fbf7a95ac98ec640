"""Store a batch of decided versions: rows, tracked resources, deferred entries and pending references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...exceptions import OutOfPart, PayloadError
from ...models import ConflictRecord, TrackedResource
from ...models.tracked import NO_TICK
from ..content.aside import forget_aside, keep_aside
from ..content.deferred import defer, forget
from ..content.pending import store_pending
from ..content.rows import brought_key, existing_keys
from ..content.write.writer import write_rows
from ..db.prepared import PreparedQuery
from ..log.tracked import create_tracked, tracked_rows, update_tracked
from ..stamp.stamper import is_young_intent
from .batch import Plan
from .results import created_result, deferred_result, refused_result

if TYPE_CHECKING:
    from ...atom.entry import Result
    from ...kind import Kind
    from .batch import Batch, Version


@lru_cache(maxsize=512)
def _by_key(count: int) -> PreparedQuery[TrackedResource]:
    """Return the query for the tracked resources of ``count`` local keys: primary key, local key, uuid."""
    return PreparedQuery(
        lambda kind, *keys: (
            TrackedResource.objects.filter(kind=kind, local_key__in=keys)
            .order_by()
            .values_list("pk", "local_key", "uuid")
        ),
        *[str] * (count + 1),
    )


def store(batch: Batch, now: int) -> None:
    """Write the versions of ``batch``; defer those that cannot be written."""
    kind, versions = batch.kind, batch.versions
    ConflictRecord.objects.using(kind.database).bulk_create(batch.conflicts)
    # Before the rows are written: a mark that the application's receivers set from here on is a change of this node.
    _clear_marks(kind, [v.tracked for v in versions if not v.is_new], now)
    for version in versions:
        if version.row is not None:
            version.row.uuid = version.tracked.uuid
    write_rows(kind, [v.row for v in versions if v.row is not None and v.error is None])
    waited = [v for v in versions if v.tracked.is_deferred or v.tracked.is_incomplete]
    for version in versions:
        _set_outcome(batch, version)
    _make_room(kind, versions, now)
    if batch.part is not None:
        for version in versions:
            if version.error is not None:
                _restore(version)
    create_tracked(kind.database, [v.tracked for v in versions if v.is_new])
    update_tracked(kind.database, list(batch.touched.values()), with_marks=False)
    forget(kind, [v.tracked for v in versions if v.tracked.is_deferred and v.plan is not Plan.DEFER])
    replaced = [v.tracked.pk for v in waited if batch.part is None or v.error is None]
    _store_pending(kind, [v for v in versions if _has_pending(v)], replaced)
    _defer(batch, [v for v in versions if v.error is not None])
    if batch.part is not None:
        forget_aside(kind, [v.tracked for v in versions if v.error is None], batch.part.peer)
    _amend_results(batch)


def defer_late(batch: Batch, version: Version, error: PayloadError) -> None:
    """Defer a version that was stored already, without a row."""
    version.defer(error)
    uuid = version.entry.uuid
    rows = tracked_rows(batch.kind).filter(uuid=uuid)
    if batch.part is None:
        rows.update(is_deleted=False, replaced_by=None, mark=None)
    else:
        version.tracked.pk = rows.values_list("pk", flat=True).get()
        _restore(version)
        rows.update(**{name: getattr(version.tracked, name) for name in _RESTORED})
    _defer(batch, [version])
    batch.results[uuid] = _failed_result(batch, version, error)


def _clear_marks(kind: Kind, replaced: Iterable[TrackedResource], now: int) -> None:
    """Clear the marks of rows that a received version replaces: their edits have lost, or changed nothing.

    The mark of a writer that is about to write the row stays.
    """
    keys = []
    for tracked in replaced:
        if tracked.mark is not None and not is_young_intent(tracked, now):
            tracked.mark, tracked.is_intent, tracked.problem = None, False, ""
            keys.append(tracked.pk)
    if keys:
        rows = TrackedResource.objects.using(kind.database).filter(pk__in=keys)
        rows.update(mark=None, is_intent=False, problem="")


def _set_outcome(batch: Batch, version: Version) -> None:
    kind, tracked, row = batch.kind, version.tracked, version.row
    if row is not None and row.error is not None:
        _find_duplicate(batch, version, row.error, is_new=row.is_new)
    tracked.restamp = False
    if version.plan is Plan.DEFER:
        tracked.is_deleted = False
        return
    tracked.is_deleted, tracked.extra = False, version.reading.extra
    if version.plan is Plan.KEEP:
        return
    if version.plan is not Plan.WRITE:  # a version to merge or to bring back counts as deleted until then
        tracked.is_deleted, tracked.local_key, tracked.etag = True, None, ""
    else:
        assert row is not None
        tracked.local_key = row.local_key
        # The etag of the written row, which may differ from the entry: a save() may complete the row.
        tracked.etag = kind.etag(row.texts, version.reading.extra)


def _find_duplicate(batch: Batch, version: Version, error: PayloadError, *, is_new: bool) -> None:
    """Look for a duplicate once more after a failed write: the other row may be an entry of the same feed."""
    version.defer(error)
    if not is_new:
        return
    try:
        version.plan_merge(batch, _same_key(batch.kind, version))
    except PayloadError as failure:
        version.defer(failure)
        return
    if version.plan is Plan.MERGE:
        version.error = None
    else:
        version.defer(error)


def _same_key(kind: Kind, version: Version) -> str | None:
    """Return the local key that the refused row brings, if another row has it."""
    key = None if version.row is None else brought_key(kind, version.row.instance)
    return key if key is not None and existing_keys(kind, [key]) else None


def _make_room(kind: Kind, versions: Iterable[Version], now: int) -> None:
    """Remove the local keys of new rows from other tracked resources that still have them.

    Such a key is left from a row that was deleted without a signal and whose key the database has assigned again, or
    from application code that wrote the new row again while it was applied.
    """
    created = {
        v.tracked.local_key: v.entry.uuid for v in versions if v.row is not None and v.row.is_new and not v.error
    }
    if not created:
        return
    found = _by_key(len(created)).rows(kind.database, kind.name, *created)
    taken = [pk for pk, key, uuid in found if uuid != created[key]]
    if not taken:
        return
    others = TrackedResource.objects.using(kind.database).filter(pk__in=taken)
    others.filter(tick__isnull=True, is_deferred=False).delete()
    others.update(local_key=None, mark=now, is_intent=False)


def _has_pending(version: Version) -> bool:
    """Return True if the row of ``version`` was written without references to resources that are not here yet."""
    return version.plan is not Plan.DEFER and version.row is not None and bool(version.row.pending)


def _store_pending(kind: Kind, incomplete: Sequence[Version], replaced: Sequence[int]) -> None:
    if incomplete or replaced:
        _find_created(kind, incomplete)
        pending = {v.tracked.pk: v.row.pending for v in incomplete if v.row is not None}
        store_pending(kind, pending, replaced=replaced)


#: The columns of a tracked resource that an accepted version changes.
_RESTORED = (
    "local_key", "endpoint_id", "tick", "stamp", "user", "first_endpoint_id", "first_tick", "is_deleted", "replaced_by",
    "etag", "extra", "awaited_endpoint_id", "keeps_content", "mark", "is_intent", "mark_user", "restamp", "problem",
)  # fmt: skip


def columns_before(tracked: TrackedResource) -> dict[str, Any]:
    """Return the columns of ``tracked`` that an accepted version changes."""
    return {name: getattr(tracked, name) for name in _RESTORED}


def _restore(version: Version) -> None:
    """Give the resource its former state: a version that is kept aside is no version of the log.

    A new resource becomes a tombstone without a version of the log, which no feed contains.
    """
    tracked = version.tracked
    if version.is_new:
        tracked.tick = tracked.first_tick = NO_TICK
        tracked.is_deleted, tracked.local_key, tracked.etag, tracked.extra = True, None, "", ""
    else:
        assert version.before is not None
        for name, value in version.before.items():
            setattr(tracked, name, value)


def _defer(batch: Batch, failed: Sequence[Version]) -> None:
    kind = batch.kind
    _find_created(kind, failed)
    for version in failed:
        entry = version.entry
        assert version.error is not None
        if batch.part is not None:
            keep_aside(kind, version.tracked, version.error, entry, batch.part.peer)
        else:
            defer(kind, version.tracked, version.error, entry.payload, is_deleted=entry.is_deleted)


def _find_created(kind: Kind, versions: Iterable[Version]) -> None:
    """Read the primary keys of the tracked resources that were just inserted."""
    by_uuid = {version.tracked.uuid: version.tracked for version in versions if version.is_new}
    if by_uuid:
        rows = tracked_rows(kind).filter(uuid__in=list(by_uuid))
        for uuid, pk in rows.values_list("uuid", "pk"):
            by_uuid[uuid].pk = pk


def _failed_result(batch: Batch, version: Version, error: PayloadError) -> Result:
    if isinstance(error, OutOfPart):  # without the tracked resource, whose key the sender must not learn
        return refused_result(batch.kind, version.entry, None, 403, error.application_code, error.public)
    return deferred_result(batch.results[version.entry.uuid], error)


def _amend_results(batch: Batch) -> None:
    for version in batch.versions:
        result = batch.results[version.entry.uuid]
        if version.error is not None:
            result = _failed_result(batch, version, version.error)
        elif result.method == "POST":
            result = created_result(result, batch.kind.resource_url(version.tracked.row_key))
        batch.results[version.entry.uuid] = result
