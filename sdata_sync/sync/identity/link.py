"""Link rows to the uuids that they have at other nodes; a former uuid of a row becomes an alias (SData sync 1.2).

An alias is a tombstone that names the uuid that replaces it. It is sent like any change, so that all other nodes stop
using the former uuid too. A version that still arrives under the alias is taken as a version of the resource with the
new uuid.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import models, transaction
from django.utils import timezone

from ...core.text import fold
from ...exceptions import LinkError, PayloadError
from ...models import ConflictRecord, DeferredEntry, TrackedResource
from ...turns import write_transaction
from ..content.deferred import defer, forget, retry_all
from ..content.pending import hand_over, store_pending
from ..content.references import MAX_ALIASES
from ..content.referrers import mark_all_referrers
from ..content.rows import read_instances
from ..content.write.writer import delete_row
from ..db.clock import now
from ..log.marks import mark, new_uuid
from ..log.suppression import applying
from ..log.tracked import tracked_rows
from ..log.wakeup import wake_after_commit
from .merge import merge_rows

if TYPE_CHECKING:
    from ...kind import Kind

logger = logging.getLogger(__name__)


def survivor_of(kind: Kind, tracked: TrackedResource) -> TrackedResource:
    """Return the resource that ``tracked`` is an alias of, or ``tracked`` itself if it is no alias."""
    for _ in range(MAX_ALIASES):
        following = tracked_rows(kind).filter(uuid=tracked.replaced_by).first() if tracked.replaced_by else None
        if following is None:
            break
        tracked = following
    return tracked


def link(kind: Kind, key: str, uuid: UUID | None, *, keep: bool = False, wait_for: int | None = None) -> UUID:
    """Link the row with the local ``key`` to ``uuid``, and return the uuid that the row has then.

    If ``uuid`` is ``None``, the row keeps its uuid, or gets a new one. The caller holds the digest's lock.

    ``wait_for`` is the primary key of an endpoint whose version of the resource is expected. The row is not sent before
    that version has arrived. Then the row takes the content of the version or, with ``keep``, keeps its own. If a
    catch-up feed of that endpoint ends without the version, the version had arrived before, and the content of this
    node is newer (``end_waiting``).

    Raises:
        LinkError: another row of this node has the uuid.
    """
    present = tracked_rows(kind).filter(local_key=key).first()
    if present is not None and (uuid is None or present.uuid == uuid):
        return present.uuid
    uuid = uuid or new_uuid()
    other = tracked_rows(kind).filter(uuid=uuid).first()
    if other is not None and other.local_key is not None:
        raise LinkError(f"{uuid} has the row {kind.name}('{other.local_key}') here already; unlink that row first.")
    if present is not None:
        _keep_deferred_version(kind, present)
        release(kind, present, replaced_by=uuid)
    if other is None:
        is_awaited = wait_for is not None
        TrackedResource.objects.using(kind.database).create(
            kind=kind.name,
            uuid=uuid,
            local_key=key,
            mark=None if is_awaited else now(),
            awaited_endpoint_id=wait_for,
            keeps_content=is_awaited and keep,
        )
    else:
        _revive(kind, other, key, is_awaited=wait_for is not None and not keep)
    if present is not None:
        hand_over(kind, present.pk, tracked_rows(kind).get(uuid=uuid).pk)
    mark_referrers_of_key(kind, key)
    transaction.on_commit(partial(retry_all, kind), using=kind.database)
    wake_after_commit(kind.name, kind.database)
    return uuid


def end_waiting(kind: Kind, origin: str) -> bool:
    """Mark the linked resources that still wait for a version of ``origin``; return True if there were any.

    Call it at the end of a catch-up feed of ``origin``, after which no such version will arrive.
    """
    # A resource that waits has no state: with this condition the index of the states finds the few that have none.
    waiting = tracked_rows(kind).filter(
        endpoint__isnull=True, tick__isnull=True, awaited_endpoint__key=fold(origin), mark__isnull=True
    )
    return bool(waiting.update(awaited_endpoint=None, keeps_content=False, restamp=True, mark=now()))


def _revive(kind: Kind, other: TrackedResource, key: str, *, is_awaited: bool) -> None:
    """Give the row ``key`` to the resource ``other`` without a row: deleted, an alias, or with a deferred version."""
    rows = tracked_rows(kind).filter(pk=other.pk)
    if other.is_deferred and is_awaited:
        rows.update(local_key=key)  # the next retry writes the deferred version into the row
        return
    forget(kind, [other])
    rows.update(local_key=key, is_deleted=False, replaced_by=None, restamp=True, mark=now(), is_intent=False)


def _keep_deferred_version(kind: Kind, tracked: TrackedResource) -> None:
    """Keep the deferred version of ``tracked``, whose uuid is about to be released, as the losing side of a conflict.

    It is kept for people to read.
    """
    entry = DeferredEntry.objects.using(kind.database).filter(resource=tracked).first()
    if entry is None or tracked.endpoint is None:
        return
    logger.warning("%s %s is relinked; its deferred version becomes a conflict record", kind.name, tracked.uuid)
    ConflictRecord.objects.using(kind.database).create(
        resource=tracked,
        decided_at=timezone.now(),
        remote_won=False,
        rule="linked while it waited",
        local_endpoint=kind.endpoint,
        local_stamp=now(),
        remote_endpoint=tracked.endpoint.url,
        remote_stamp=tracked.stamp,
        remote_user=tracked.user,
        remote_payload=entry.payload,
    )


def release(kind: Kind, tracked: TrackedResource, *, replaced_by: UUID | None) -> None:
    """Take the uuid of ``tracked`` from its row; it becomes an alias of ``replaced_by``.

    If ``replaced_by`` is ``None``, or the uuid was never sent or received, the tracked resource is deleted.
    """
    rows = tracked_rows(kind).filter(pk=tracked.pk)
    if replaced_by is None or (tracked.tick is None and not tracked.is_deferred):
        rows.delete()
        return
    forget(kind, [tracked])
    rows.update(
        local_key=None,
        is_deleted=True,
        replaced_by=replaced_by,
        restamp=True,
        extra="",
        # Earlier than the mark of the survivor, so that a node that receives both renames its row first.
        mark=now() - 1,
        is_intent=False,
        problem="",
    )


def rename(kind: Kind, key: str, old: UUID, uuid: UUID, *, is_edited: bool) -> None:
    """Give the row ``key`` the ``uuid`` that has replaced ``old`` at a peer; the caller has taken ``old`` from it.

    The caller holds the digest's lock. If both uuids have a row here, all references to the row ``key`` are changed to
    the other row, and the row ``key`` is deleted. ``is_edited`` means that the row was changed here without the peer's
    knowledge: then its content becomes a new version of this node.
    """
    other = tracked_rows(kind).filter(uuid=uuid).first()
    seen = {old, uuid}
    while other is not None and other.replaced_by is not None and other.replaced_by not in seen:
        seen.add(other.replaced_by)
        other = tracked_rows(kind).filter(uuid=other.replaced_by).first()
    if other is not None and other.local_key is not None:
        _merge_rows(kind, key, other.local_key)
        return
    is_gone = other is not None and other.is_deleted and other.replaced_by is None
    if other is not None and is_gone and not is_edited:  # the resource was deleted under its new uuid
        _delete(kind, key, other)
        return
    marked = now() if is_edited else None
    if other is None:
        other = TrackedResource.objects.using(kind.database).create(
            kind=kind.name, uuid=uuid, local_key=key, mark=marked
        )
    else:
        tracked_rows(kind).filter(pk=other.pk).update(local_key=key, is_deleted=False, replaced_by=None, mark=marked)
    hand_over(kind, tracked_rows(kind).get(uuid=old).pk, other.pk)
    mark_referrers_of_key(kind, key)
    transaction.on_commit(partial(retry_all, kind), using=kind.database)


def _delete(kind: Kind, key: str, deleted: TrackedResource) -> None:
    """Delete the row ``key``, whose resource is ``deleted`` under another uuid; defer it while a row protects it."""
    try:
        with write_transaction(kind.database), applying(kind.name, keys=[key]):
            for row in read_instances(kind, [key]).values():
                delete_row(kind, row)
    except (models.ProtectedError, models.RestrictedError) as error:
        tracked_rows(kind).filter(pk=deleted.pk).update(local_key=key, is_deleted=False)
        defer(kind, deleted, PayloadError(f"{type(error).__name__}: {error}"), None, is_deleted=True)


def _merge_rows(kind: Kind, key: str, into: str) -> None:
    instances = read_instances(kind, [key, into])
    old, new = instances.get(key), instances.get(into)
    if old is None or new is None:
        return
    mark_all_referrers(old, kind.database)
    merge_rows(kind, old, new)
    logger.info("%s: the rows %s and %s were merged, as the same thing; %s stays", kind.name, key, into, into)


def mark_referrers_of_key(kind: Kind, key: str) -> None:
    """Mark the rows that refer to the row ``key``, because its uuid has changed."""
    instance = read_instances(kind, [key]).get(key)
    if instance is not None:
        mark_all_referrers(instance, kind.database)


def unlink(kind: Kind, uuid: UUID) -> bool:
    """Remove the link of ``uuid`` to its row; return False if it has no row.

    The row stays. It becomes a new resource at its next change.
    """
    tracked = tracked_rows(kind).filter(uuid=uuid, local_key__isnull=False).first()
    if tracked is None:
        return False
    release(kind, tracked, replaced_by=None)
    return True


def relink(kind: Kind, uuid: UUID, key: str) -> None:
    """Link ``uuid`` to the row with the local ``key``, and unlink its former row (SData sync 1.3, PUT).

    The caller holds the digest's lock. The former row of ``uuid`` becomes a resource of its own. The former uuid of the
    row ``key`` becomes an alias.
    """
    before = tracked_rows(kind).filter(uuid=uuid).first()
    if before is not None and before.local_key == key:
        return
    loser = None if before is None else before.local_key
    if loser is not None and before is not None:
        store_pending(kind, {}, replaced=[before.pk])
        tracked_rows(kind).filter(uuid=uuid).update(local_key=None, is_deleted=True, restamp=True)
    link(kind, key, uuid)
    if loser is not None:
        mark(kind.database, kind.name, [loser])
        mark_referrers_of_key(kind, loser)
