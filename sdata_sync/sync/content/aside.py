"""Keep entries aside that a peer with a part of the rows has sent and that cannot be applied.

Such an entry is no version of the log, because other nodes must not get what this node may have to refuse. The version
of this node stays. An entry that is applied later, by a retry or an administrator, is a change of this node.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import Q
from django.utils import timezone

from ...atom.text import replace_forbidden
from ...exceptions import OutOfPart
from ...models import ConflictRecord, DeferredEntry, PendingReference, ScopedResource, TrackedResource
from ..db.clock import now
from ..db.statements import chunks
from ..log.suppression import present_sender
from ..log.wakeup import wake_after_commit
from ..scope import row_scope

if TYPE_CHECKING:
    from uuid import UUID

    from ...atom.entry import Entry
    from ...atom.payload import Payload
    from ...exceptions import PayloadError
    from ...kind import Kind
    from ...models import Peer

logger = logging.getLogger(__name__)

#: Why an entry that was kept aside is lost. A conflict record stores 40 characters.
_CHANGED_MEANWHILE = "the row was changed meanwhile"
_DEFERRED_STAYS = "a deferred entry stays"
_REPLACED = "another entry was kept aside"


def keep_aside(kind: Kind, tracked: TrackedResource, error: PayloadError, entry: Entry, peer: Peer | None) -> None:
    """Keep ``entry`` aside because of ``error``; ``tracked`` has its former state.

    If the entry is out of the part of ``peer``, the version of this node is sent to it, or withdrawn from it.
    """
    logger.warning("%s %s of %s is kept aside: %s", kind.name, entry.uuid, peer or "a login without a peer", error)
    if tracked.is_deferred:
        _record_lost(kind, tracked, _unsaved(tracked, error, entry, peer), _DEFERRED_STAYS)
        return
    rows = DeferredEntry.objects.using(kind.database)
    former = rows.filter(resource=tracked.pk, is_aside=True).exclude(peer=peer and peer.pk).first()
    if former is not None:
        _record_lost(kind, tracked, former, _REPLACED)
    rows.filter(resource=tracked.pk).delete()
    _unsaved(tracked, error, entry, peer).save(using=kind.database, force_insert=True)
    await_targets(kind, tracked, error)
    if isinstance(error, OutOfPart):
        send_ours(kind, tracked, peer)


def _unsaved(tracked: TrackedResource, error: PayloadError, entry: Entry, peer: Peer | None) -> DeferredEntry:
    return DeferredEntry(
        **received_columns(entry.uuid, entry.payload, error, is_deleted=entry.is_deleted),
        resource_id=tracked.pk,
        is_aside=True,
        peer=peer,
        endpoint_url=entry.state.endpoint[:500],
        tick=entry.state.tick,
        stamp=entry.state.stamp,
        user=entry.state.user[:150],
        own_etag=tracked.etag,
    )


def received_columns(uuid: UUID, payload: Payload | None, error: PayloadError, *, is_deleted: bool) -> dict[str, Any]:
    """Return the columns of a deferred entry, aside or not, that tell what was received, from whom, and its fault."""
    return {
        "is_deleted": is_deleted,
        "payload": payload.xml(uuid=str(uuid)) if payload is not None and not is_deleted else "",
        "received_at": timezone.now(),
        "login": present_sender(),
        "application_code": error.application_code,
        **reason_columns(error),
    }


def reason_columns(error: PayloadError) -> dict[str, str]:
    """Return the columns of a deferred entry that tell people why it waits."""
    # The text may quote characters that no database stores.
    return {"reason": replace_forbidden(str(error)), "payload_path": error.payload_path[:300]}


def await_targets(kind: Kind, tracked: TrackedResource, error: PayloadError) -> None:
    """Store the targets that the entry waits for, beside the pending references of the row."""
    references = PendingReference.objects.using(kind.database)
    references.filter(resource=tracked.pk, name="").delete()
    references.bulk_create(
        (
            PendingReference(resource_id=tracked.pk, name="", kind=kind_name, uuid=uuid)
            for kind_name, uuid in dict.fromkeys(error.waits_for)
        ),
        ignore_conflicts=True,
    )


def send_ours(kind: Kind, tracked: TrackedResource, peer: Peer | None) -> None:
    """Send the version of this node to ``peer``, or withdraw the resource from it, because its version is refused.

    The peer has its own version, so the digests would be equal over different data otherwise.
    """
    is_in_part = tracked.local_key is not None and _may_have(kind, tracked, peer)
    if is_in_part:
        rows = TrackedResource.objects.using(kind.database).filter(pk=tracked.pk)
        rows.update(mark=now(), restamp=True, is_intent=False)
    elif peer is not None:
        scopes = ScopedResource.objects.using(kind.database)
        scopes.update_or_create(peer=peer, resource=tracked, defaults={"is_withdrawn": True, "needs_resend": True})
    wake_after_commit(kind.name, kind.database)


def _may_have(kind: Kind, tracked: TrackedResource, peer: Peer | None) -> bool:
    scope = row_scope(kind, peer)
    return scope is None or bool(scope.among([tracked.row_key]))


def _record_lost(kind: Kind, tracked: TrackedResource, entry: DeferredEntry, rule: str) -> None:
    """Keep the content of an entry aside as the losing side of a conflict, for people to read."""
    ConflictRecord.objects.using(kind.database).create(
        resource_id=tracked.pk,
        decided_at=timezone.now(),
        remote_won=False,
        rule=rule,
        local_endpoint=kind.endpoint,
        local_stamp=tracked.stamp,
        local_user=tracked.user,
        remote_endpoint=entry.endpoint_url,
        remote_stamp=entry.stamp,
        remote_user=entry.user,
        remote_payload=entry.payload,
        login=entry.login,
    )


def forget_aside(kind: Kind, tracked: Sequence[TrackedResource], peer: Peer | None) -> None:
    """Delete the entries of ``peer`` that are kept aside for ``tracked``: a later version of it was applied."""
    for chunk in chunks(row.pk for row in tracked if row.pk is not None):
        entries = DeferredEntry.objects.using(kind.database).filter(resource__in=chunk, is_aside=True)
        entries.filter(peer=peer and peer.pk).delete()


def is_overtaken(kind: Kind, entry: DeferredEntry, tracked: TrackedResource) -> bool:
    """Return True if the row was changed since the entry was kept aside; then record the entry as a lost conflict."""
    if not entry.is_aside or entry.own_etag == tracked.etag:
        return False
    _record_lost(kind, tracked, entry, _CHANGED_MEANWHILE)
    PendingReference.objects.using(kind.database).filter(resource=tracked.pk, name="").delete()
    DeferredEntry.objects.using(kind.database).filter(pk=entry.pk).delete()
    return True


def mark_applied(kind: Kind, tracked: TrackedResource, user: str) -> None:
    """Mark an entry that was kept aside and is applied now as a change of this node."""
    rows = TrackedResource.objects.using(kind.database).filter(pk=tracked.pk)
    rows.update(mark=now(), restamp=True, is_intent=False, mark_user=user)
    wake_after_commit(kind.name, kind.database)


#: The deferred resources, and those with an entry that is kept aside.
waits = Q(is_deferred=True) | Q(deferred_entry__is_aside=True)
