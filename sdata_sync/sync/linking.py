"""Linking: a row gets the uuid that it has elsewhere; one that had another keeps it as an alias (SData sync 1.2).

An alias is a tombstone that says by which uuid it was replaced. It travels like any change, so that all others let go
of the old name too; whatever still comes under it is taken for a version of the resource that has the new one.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from django.db import models, transaction

from ..exceptions import LinkError
from ..models import TrackedResource
from ..resources import SyncResource, all_rows
from .clock import now
from .log import ANEW
from .marks import mark, new_uuid
from .relations.referrers import mark_all_referrers
from .rows import read_instances
from .suppression import applying
from .wakeup import wake_after_commit

logger = logging.getLogger(__name__)

#: In the place of an etag: the row was linked, and keeps its content when the other side's version comes.
KEPT = "kept"


def tracked_rows(resource: SyncResource) -> models.QuerySet[TrackedResource]:
    """Return what is tracked of ``resource``."""
    return TrackedResource.objects.using(resource.database).filter(kind=resource.kind)


def link(resource: SyncResource, key: str, uuid: UUID | None, *, keep: bool = False, wait: bool = False) -> UUID:
    """Give the row with the local ``key`` the ``uuid``, or one of its own if that is ``None``; return it.

    Under the digest's lock. With ``wait`` the other side's version is expected: the row is not sent before it has
    come, and then it takes that version's content, or, with ``keep``, keeps its own.

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
        release(resource, present, replaced_by=uuid)
    marked = None if wait else now()
    etag = KEPT if keep and wait else ""
    if other is None:
        TrackedResource.objects.using(resource.database).create(
            kind=resource.kind, uuid=uuid, local_key=key, etag=etag, mark=marked
        )
    else:  # it was deleted here, or an alias, and comes back to life
        tracked_rows(resource).filter(pk=other.pk).update(
            local_key=key, is_deleted=False, replaced_by=None, etag=ANEW, mark=now()
        )
    mark_referrers_of_key(resource, key)
    wake_after_commit(resource.kind, resource.database)
    return uuid


def release(resource: SyncResource, tracked: TrackedResource, *, replaced_by: UUID | None) -> None:
    """Part a row from its uuid. One that others may have heard of becomes an alias, or, without a new one, is gone."""
    rows = tracked_rows(resource).filter(pk=tracked.pk)
    if replaced_by is None or (tracked.tick is None and not tracked.is_deferred):
        rows.delete()
        return
    rows.update(
        local_key=None,
        is_deleted=True,
        is_deferred=False,
        is_incomplete=False,
        replaced_by=replaced_by,
        etag=ANEW,
        extra="",
        # Before what it was replaced by: whoever hears of both renames its row first.
        mark=now() - 1,
        is_intent=False,
        problem="",
    )


def rename(resource: SyncResource, key: str, uuid: UUID, *, is_edited: bool) -> None:
    """Let the row ``key``, whose uuid others have replaced by ``uuid``, go by that one; its old one is released.

    Under the digest's lock. Where both have a row here, everything that points at the old one points at the other
    from now on, and the old one is deleted. ``is_edited`` says that the row was changed here without the others'
    knowledge: then its content is a version of its own.
    """
    other = tracked_rows(resource).filter(uuid=uuid).first()
    if other is not None and other.local_key is not None:
        _unite(resource, key, other.local_key)
        return
    if other is not None and other.replaced_by is not None:
        rename(resource, key, other.replaced_by, is_edited=is_edited)
        return
    if other is not None and other.is_deleted and not is_edited:  # under its new name it was deleted
        with applying(resource.kind, keys=[key]):
            for row in read_instances(resource, [key]).values():
                row.delete(using=resource.database)
        return
    marked = now() if is_edited else None
    if other is None:
        TrackedResource.objects.using(resource.database).create(
            kind=resource.kind, uuid=uuid, local_key=key, mark=marked
        )
    else:
        tracked_rows(resource).filter(pk=other.pk).update(local_key=key, is_deleted=False, mark=marked)
    mark_referrers_of_key(resource, key)


def _unite(resource: SyncResource, key: str, into: str) -> None:
    instances = read_instances(resource, [key, into])
    old, new = instances.get(key), instances.get(into)
    if old is None or new is None:
        return
    mark_all_referrers(old, resource.database)
    _repoint(old, new, resource.database)
    with applying(resource.kind, keys=[key]):
        old.delete(using=resource.database)
    logger.info("%s: the rows %s and %s were the same thing; %s stays", resource.kind, key, into, into)


def _repoint(old: models.Model, new: models.Model, using: str) -> None:
    """Let whatever has a foreign key to ``old`` point at ``new``, also rows that are not shared."""
    for relation in old._meta.get_fields(include_hidden=True):
        if not (relation.auto_created and not relation.concrete and (relation.one_to_many or relation.one_to_one)):
            continue
        field: Any = relation.field  # type: ignore[union-attr]
        if getattr(field.remote_field, "parent_link", False):
            continue
        attname = field.target_field.attname
        rows = all_rows(field.model, using)
        try:
            with transaction.atomic(using=using):
                rows.filter(**{field.attname: getattr(old, attname)}).update(**{field.attname: getattr(new, attname)})
        except models.ProtectedError:
            raise
        except Exception:
            # Both are a member of the same, or each has the one row that there may be: those of the old one go with it.
            logger.info("%s stays with the row that goes", field, exc_info=True)


def mark_referrers_of_key(resource: SyncResource, key: str) -> None:
    """Mark whatever refers to the row ``key``: the uuid that it refers to is another."""
    instance = read_instances(resource, [key]).get(key)
    if instance is not None:
        mark_all_referrers(instance, resource.database)


def unlink(resource: SyncResource, uuid: UUID) -> bool:
    """Forget that ``uuid`` is a row here; the row stays, and is a new resource when it is next changed."""
    tracked = tracked_rows(resource).filter(uuid=uuid, local_key__isnull=False).first()
    if tracked is None:
        return False
    release(resource, tracked, replaced_by=None)
    return True


def relink(resource: SyncResource, uuid: UUID, key: str) -> None:
    """Let ``uuid`` be the row with the local ``key``, whatever it was before (SData sync 1.3, PUT).

    Under the digest's lock. A row that loses it becomes a resource of its own; the uuid that ``key`` had until now
    becomes an alias.
    """
    before = tracked_rows(resource).filter(uuid=uuid).first()
    if before is not None and before.local_key == key:
        return
    loser = None if before is None else before.local_key
    if loser is not None:
        tracked_rows(resource).filter(uuid=uuid).update(local_key=None, is_deleted=True, etag=ANEW)
    link(resource, key, uuid)
    if loser is not None:
        mark(resource.database, resource.kind, [loser])
        mark_referrers_of_key(resource, loser)
