"""Received deletions that would take other rows along: they wait until that takes along no row that the source has.

A deletion arrives before, after or without the changes that its source made together with it, a contact that was moved
away from the deleted account for instance. So a deletion that would take other rows along is deferred until this
node has all that the source had recorded of those kinds when it sent the deletion. The digest moves on meanwhile.

Of what the deletion would take along even then,

* a resource that the source still has holds the deletion back, until the resource changes or somebody decides;
* a resource that the source has never seen, or has deleted itself, goes with it. That is a change of this node, and it
  is recorded as a conflict with both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from django.utils import timezone

from ..core.digest import Digest
from ..core.state import SyncState
from ..exceptions import DeletionWaits
from ..models import ConflictRecord, TrackedResource
from ..resources import SyncResource
from .announcing import announce
from .conditions import Condition
from .digests import load_digest
from .faults import name_of
from .local_version import LocalVersion
from .log import ANEW
from .marks import mark
from .reach import Taken, taken_along
from .relations.directory import chunks
from .rows import read_instances_apart
from .wakeup import wake_after_commit

if TYPE_CHECKING:
    from .changes import RowChange

#: Rows that the reason of a deletion names.
NAMED_ROWS = 3
#: What stands in a conflict record as the rule.
CASCADE_RULE = "deleted with what it referred to"


def hold_back(resource: SyncResource, deletions: Sequence[RowChange]) -> None:
    """Give a ``DeletionWaits`` to each of ``deletions`` that has to wait; note in the others what they take along."""
    concerned = [change for change in deletions if change.error is None]
    if not concerned or not taken_along(resource, [change.instance for change in concerned]):
        return
    going = {str(change.instance.pk) for change in concerned}
    for change in concerned:
        taken = dict(taken_along(resource, [change.instance]))
        taken[resource] = taken.get(resource, set()) - going
        change.taken = {other: keys for other, keys in taken.items() if keys}
        if change.condition is not None:
            change.error = _reason_to_wait(change.condition, change.taken)


def _reason_to_wait(condition: Condition, taken: Taken) -> DeletionWaits | None:
    by_kind = {resource.kind: resource for resource in taken}
    lacking = condition.lacking(by_kind)
    if lacking:
        return DeletionWaits(
            f"It would take rows of {', '.join(lacking)} along. It waits for the changes of these kinds that "
            f"{condition.origin or 'its source'} had when it deleted it.",
            condition=condition,
        )
    held: list[str] = []
    for resource, keys in taken.items():
        held += _rows_of_source(resource, keys, condition.seen.get(resource.kind) or Digest())
    if not held:
        return None
    more = f" and {len(held) - NAMED_ROWS} more" if len(held) > NAMED_ROWS else ""
    return DeletionWaits(
        f"It would take along what its source still has: {', '.join(held[:NAMED_ROWS])}{more}. Apply the deletion or "
        "keep the row, in the admin.",
        public="It would take along what its source still has.",
        condition=condition,
    )


def _rows_of_source(resource: SyncResource, keys: Collection[str], seen: Digest) -> list[str]:
    """Return the names of those of the rows ``keys`` that a source with the digest ``seen`` still has."""
    tracked = _tracked(resource, keys)
    urls = _endpoint_urls(resource, tracked)
    still = [row for row in tracked if _has_seen(seen, urls, row) and not _was_deleted_there(resource, row)]
    instances, _ = read_instances_apart(resource, [row.local_key or "" for row in still[: 2 * NAMED_ROWS]])
    return [
        name_of(instances[key]) if (key := row.local_key or "") in instances else f"{resource.kind}({key!r})"
        for row in still
    ]


def _has_seen(seen: Digest, urls: Mapping[int, str], row: TrackedResource) -> bool:
    states = ((row.endpoint_id, row.tick), (row.first_endpoint_id, row.first_tick))
    return any(
        endpoint is not None
        and tick is not None
        and seen.contains(SyncState(endpoint=urls.get(endpoint, ""), tick=tick, stamp=0))
        for endpoint, tick in states
    )


def _was_deleted_there(resource: SyncResource, row: TrackedResource) -> bool:
    """Return True if a deletion of ``row`` came and lost against the version that stands here."""
    lost = ConflictRecord.objects.using(resource.database).filter(resource=row.pk, remote_won=False, remote_payload="")
    return lost.exists()


def _tracked(resource: SyncResource, keys: Collection[str]) -> list[TrackedResource]:
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind)
    return [row for chunk in chunks(sorted(keys)) for row in rows.filter(local_key__in=chunk).order_by("pk")]


def _endpoint_urls(resource: SyncResource, tracked: Iterable[TrackedResource]) -> dict[int, str]:
    stored = load_digest(resource)
    wanted = {pk for row in tracked for pk in (row.endpoint_id, row.first_endpoint_id) if pk is not None}
    return {pk: stored.endpoint_url(pk) for pk in wanted}


def record_taken(resource: SyncResource, change: RowChange) -> None:
    """Record what the deletion ``change`` takes along as changes of this node, each as a conflict with both sides."""
    deletion = change.state or SyncState(endpoint=resource.endpoint, tick=0, stamp=0)
    for other, keys in change.taken.items():
        mark(other.database, other.kind, sorted(keys))
        wake_after_commit(other.kind, other.database)
        tracked = _tracked(other, keys)
        # A resource that never had a tick gets one, so that the record of its deletion is kept.
        unknown = [row.pk for row in tracked if row.tick is None]
        TrackedResource.objects.using(other.database).filter(pk__in=unknown).update(etag=ANEW)
        instances, _ = read_instances_apart(other, [row.local_key or "" for row in tracked])
        records = [_record(other, row, instances, deletion) for row in tracked if not row.is_deleted]
        ConflictRecord.objects.using(other.database).bulk_create(records)
        announce(other, records, [])


def _record(
    resource: SyncResource, tracked: TrackedResource, instances: Mapping[str, object], deletion: SyncState
) -> ConflictRecord:
    instance = instances.get(tracked.local_key or "")
    local = LocalVersion(resource, tracked, instance)  # type: ignore[arg-type]
    url = tracked.endpoint.url if tracked.endpoint is not None else resource.endpoint
    return ConflictRecord(
        resource=tracked,
        decided_at=timezone.now(),
        remote_won=True,
        rule=CASCADE_RULE,
        local_endpoint=url,
        local_stamp=tracked.stamp,
        local_user=tracked.user[:150],
        local_payload=local.payload,
        remote_endpoint=deletion.endpoint,
        remote_stamp=deletion.stamp,
        remote_user=deletion.user[:150],
        remote_payload="",
    )
