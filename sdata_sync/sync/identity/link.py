"""Linking: a row gets the uuid that it has elsewhere; one that had another keeps it as an alias (SData sync 1.2).

An alias is a tombstone that says by which uuid it was replaced. It travels like any change, so that all others let go
of the old name too; whatever still comes under it is taken for a version of the resource that has the new one.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import models, transaction
from django.utils import timezone

from ...exceptions import LinkError, PayloadError
from ...models import ConflictRecord, DeferredEntry, TrackedResource
from ..content.deferred import defer, forget, settle_all
from ..content.pending import hand_over, store_pending
from ..content.references import MAX_ALIASES
from ..content.referrers import mark_all_referrers
from ..content.rows import read_instances
from ..db.clock import now
from ..log.marks import mark, new_uuid
from ..log.suppression import applying
from ..log.tracked import tracked_rows
from ..log.wakeup import wake_after_commit
from .merge import merge_rows

if TYPE_CHECKING:
    from ...kind import Kind

logger = logging.getLogger(__name__)


def survivor_of(resource: Kind, tracked: TrackedResource) -> TrackedResource:
    """Return the resource that ``tracked`` is an alias of, itself if it is none."""
    for _ in range(MAX_ALIASES):
        following = tracked_rows(resource).filter(uuid=tracked.replaced_by).first() if tracked.replaced_by else None
        if following is None:
            break
        tracked = following
    return tracked


def link(resource: Kind, key: str, uuid: UUID | None, *, keep: bool = False, wait_for: int | None = None) -> UUID:
    """Give the row with the local ``key`` the ``uuid``, or one of its own if that is ``None``; return it.

    Under the digest's lock. With ``wait_for``, the primary key of an endpoint, that one's version is expected: the
    row is not sent before it has come, and then it takes that version's content, or, with ``keep``, keeps its own.
    Where a catch-up feed from there ends without it, it had come before, and ours is newer (``end_waiting``).

    Raises:
        LinkError: the uuid has another row here.
    """
    present = tracked_rows(resource).filter(local_key=key).first()
    if present is not None and (uuid is None or present.uuid == uuid):
        return present.uuid
    uuid = uuid or new_uuid()
    other = tracked_rows(resource).filter(uuid=uuid).first()
    if other is not None and other.local_key is not None:
        raise LinkError(f"{uuid} is {resource.kind}('{other.local_key}') here already; both rows cannot be one.")
    if present is not None:
        _keep_waiting_version(resource, present)
        release(resource, present, replaced_by=uuid)
    if other is None:
        is_awaited = wait_for is not None
        TrackedResource.objects.using(resource.database).create(
            kind=resource.kind,
            uuid=uuid,
            local_key=key,
            mark=None if is_awaited else now(),
            awaited_endpoint_id=wait_for,
            keeps_content=is_awaited and keep,
        )
    else:
        _revive(resource, other, key, is_awaited=wait_for is not None and not keep)
    if present is not None:
        hand_over(resource, present.pk, tracked_rows(resource).get(uuid=uuid).pk)
    mark_referrers_of_key(resource, key)
    transaction.on_commit(partial(settle_all, resource), using=resource.database)
    wake_after_commit(resource.kind, resource.database)
    return uuid


def end_waiting(resource: Kind, origin: str) -> bool:
    """Send what was linked and waits for a version of ``origin``, which has said all; tell whether there was any."""
    waiting = tracked_rows(resource).filter(awaited_endpoint__key=origin.lower(), mark__isnull=True)
    return bool(waiting.update(awaited_endpoint=None, keeps_content=False, restamp=True, mark=now()))


def _revive(resource: Kind, other: TrackedResource, key: str, *, is_awaited: bool) -> None:
    """Give a row to a resource that had none: it was deleted here, an alias, or its version waits to be written."""
    rows = tracked_rows(resource).filter(pk=other.pk)
    if other.is_deferred and is_awaited:
        rows.update(local_key=key)  # what waits is written into the row as soon as it is tried again
        return
    forget(resource, [other])
    rows.update(local_key=key, is_deleted=False, replaced_by=None, restamp=True, mark=now(), is_intent=False)


def _keep_waiting_version(resource: Kind, tracked: TrackedResource) -> None:
    """Keep, for people, the version of a row that waits and whose uuid is about to go: as one that did not stay."""
    entry = DeferredEntry.objects.using(resource.database).filter(resource=tracked).first()
    if entry is None or tracked.endpoint is None:
        return
    logger.warning("%s %s is linked while a newer version of it waits; that is kept", resource.kind, tracked.uuid)
    ConflictRecord.objects.using(resource.database).create(
        resource=tracked,
        decided_at=timezone.now(),
        remote_won=False,
        rule="linked while it waited",
        local_endpoint=resource.endpoint,
        local_stamp=now(),
        remote_endpoint=tracked.endpoint.url,
        remote_stamp=tracked.stamp,
        remote_user=tracked.user,
        remote_payload=entry.payload,
    )


def release(resource: Kind, tracked: TrackedResource, *, replaced_by: UUID | None) -> None:
    """Remove the uuid from its row: a uuid that was sent becomes an alias of ``replaced_by``, if there is one."""
    rows = tracked_rows(resource).filter(pk=tracked.pk)
    if replaced_by is None or (tracked.tick is None and not tracked.is_deferred):
        rows.delete()
        return
    forget(resource, [tracked])
    rows.update(
        local_key=None,
        is_deleted=True,
        replaced_by=replaced_by,
        restamp=True,
        extra="",
        # Before what it was replaced by: whoever hears of both renames its row first.
        mark=now() - 1,
        is_intent=False,
        problem="",
    )


def rename(resource: Kind, key: str, old: UUID, uuid: UUID, *, is_edited: bool) -> None:
    """Give the row ``key`` the ``uuid`` that has replaced ``old`` at a peer; ``old`` is released.

    Under the digest's lock. Where both have a row here, everything that points at the old one points at the other
    from now on, and the old one is deleted. ``is_edited`` says that the row was changed here without the others'
    knowledge: then its content is a version of its own.
    """
    other = tracked_rows(resource).filter(uuid=uuid).first()
    seen = {old, uuid}
    while other is not None and other.replaced_by is not None and other.replaced_by not in seen:
        seen.add(other.replaced_by)
        other = tracked_rows(resource).filter(uuid=other.replaced_by).first()
    if other is not None and other.local_key is not None:
        _unite(resource, key, other.local_key)
        return
    is_gone = other is not None and other.is_deleted and other.replaced_by is None
    if other is not None and is_gone and not is_edited:  # under its new name it was deleted
        _delete(resource, key, other)
        return
    marked = now() if is_edited else None
    if other is None:
        other = TrackedResource.objects.using(resource.database).create(
            kind=resource.kind, uuid=uuid, local_key=key, mark=marked
        )
    else:
        tracked_rows(resource).filter(pk=other.pk).update(
            local_key=key, is_deleted=False, replaced_by=None, mark=marked
        )
    hand_over(resource, tracked_rows(resource).get(uuid=old).pk, other.pk)
    mark_referrers_of_key(resource, key)
    transaction.on_commit(partial(settle_all, resource), using=resource.database)


def _delete(resource: Kind, key: str, deleted: TrackedResource) -> None:
    """Delete the row ``key``, which is ``deleted`` by another name; while something protects it, that waits."""
    try:
        with transaction.atomic(using=resource.database), applying(resource.kind, keys=[key]):
            for row in read_instances(resource, [key]).values():
                row.delete(using=resource.database)
    except (models.ProtectedError, models.RestrictedError) as error:
        tracked_rows(resource).filter(pk=deleted.pk).update(local_key=key, is_deleted=False)
        defer(resource, deleted, PayloadError(f"{type(error).__name__}: {error}"), None, is_deleted=True)


def _unite(resource: Kind, key: str, into: str) -> None:
    instances = read_instances(resource, [key, into])
    old, new = instances.get(key), instances.get(into)
    if old is None or new is None:
        return
    mark_all_referrers(old, resource.database)
    merge_rows(resource, old, new)
    logger.info("%s: the rows %s and %s were the same thing; %s stays", resource.kind, key, into, into)


def mark_referrers_of_key(resource: Kind, key: str) -> None:
    """Mark the rows that refer to the row ``key``, because its uuid has changed."""
    instance = read_instances(resource, [key]).get(key)
    if instance is not None:
        mark_all_referrers(instance, resource.database)


def unlink(resource: Kind, uuid: UUID) -> bool:
    """Forget that ``uuid`` is a row here; the row stays, and is a new resource when it is next changed."""
    tracked = tracked_rows(resource).filter(uuid=uuid, local_key__isnull=False).first()
    if tracked is None:
        return False
    release(resource, tracked, replaced_by=None)
    return True


def relink(resource: Kind, uuid: UUID, key: str) -> None:
    """Link ``uuid`` to the row with the local ``key``, and unlink its former row (SData sync 1.3, PUT).

    Under the digest's lock. A row that loses it becomes a resource of its own; the uuid that ``key`` had until now
    becomes an alias.
    """
    before = tracked_rows(resource).filter(uuid=uuid).first()
    if before is not None and before.local_key == key:
        return
    loser = None if before is None else before.local_key
    if loser is not None and before is not None:
        store_pending(resource, {}, replaced=[before.pk])
        tracked_rows(resource).filter(uuid=uuid).update(local_key=None, is_deleted=True, restamp=True)
    link(resource, key, uuid)
    if loser is not None:
        mark(resource.database, resource.kind, [loser])
        mark_referrers_of_key(resource, loser)
