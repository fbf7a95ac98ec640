"""What a peer may have of a resource, and what it has: rows that leave its scope are withdrawn, others come back.

A row can leave or enter a scope without being changed itself. Then it gets a new number, with the stamp that it had:
for all others nothing has changed, and the peer hears of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import F
from django.db.models.functions import Coalesce

from ..core.digest import Digest
from ..core.state import SyncState
from ..models import Peer, ScopedResource, TrackedResource
from ..resources import SyncResource
from .digests import StoredDigest, lock_digest
from .log import ANEW
from .marks import key_text
from .relations.directory import chunks
from .retrying import atomically


def is_filtered(resource: SyncResource) -> bool:
    """Tell whether a resource may show different rows to different peers."""
    return type(resource).queryset_for is not SyncResource.queryset_for


def scope_of(resource: SyncResource, peer: Peer | None) -> models.QuerySet[Any] | None:
    """Return the rows that ``peer`` may have; ``None`` for all of them."""
    return resource.queryset_for(peer) if is_filtered(resource) else None


def peer_of(user: Any) -> Peer | None:
    """Return the peer that logs in as ``user``, ``None`` if it is nobody's user."""
    return Peer.objects.filter(user=user.pk).first() if user is not None and user.is_authenticated else None


@dataclass(frozen=True)
class Scope:
    """What ``peer`` has of a filtered resource, as of the last ``review``."""

    resource: SyncResource
    peer: Peer | None

    def sorted_out(self, tracked: Iterable[TrackedResource]) -> dict[int, bool]:
        """Return what of ``tracked`` the peer is to hear of, by primary key, and whether as something withdrawn."""
        if self.peer is None:  # a stranger: what it may have is asked for anew, and nothing is remembered
            allowed = _keys(self.resource, self.resource.queryset_for(None))
            return {row.pk: False for row in tracked if allowed is None or row.local_key in allowed}
        known = ScopedResource.objects.using(self.resource.database).filter(peer=self.peer)
        found: dict[int, bool] = {}
        for chunk in chunks(row.pk for row in tracked):
            found.update(known.filter(resource__in=chunk).values_list("resource_id", "is_withdrawn"))
        return found


def scope_for(resource: SyncResource, peer: Peer | None) -> Scope | None:
    """Return the scope of a peer that may have only a part, ``None`` if it may have everything."""
    if not is_filtered(resource):
        return None
    if resource.queryset_for(peer) is not None:
        return Scope(resource, peer)
    remembered = ScopedResource.objects.using(resource.database).filter(peer=peer, resource__kind=resource.kind)
    if peer is not None and remembered.exists():
        remembered.delete()  # it was let in; what it lacked was given a new number by the review
    return None


def review(resource: SyncResource, peer: Peer | None, known: Digest | None) -> None:
    """Compare what ``peer``, whose digest is ``known``, has with what it may have; mark what it must hear of.

    It reads the keys of all rows that the peer may have.
    """
    if peer is None or not is_filtered(resource):
        return
    atomically(resource.database, partial(_review_under_lock, resource, peer, known))


def _review_under_lock(resource: SyncResource, peer: Peer, known: Digest | None) -> None:
    stored = lock_digest(resource)
    allowed = _keys(resource, resource.queryset_for(peer))
    scopes = ScopedResource.objects.using(resource.database).filter(peer=peer, resource__kind=resource.kind)
    if allowed is None:
        if not scopes.exists():
            return
        allowed = _keys(resource, resource.rows()) or set()
    active = scopes.filter(is_withdrawn=False, resource__local_key__isnull=False)
    present = {key for key in active.values_list("resource__local_key", flat=True) if key is not None}
    _enter(resource, stored, peer, known, allowed - present)
    _leave(resource, stored, peer, known, present - allowed)


def remember(resource: SyncResource, origin: str, uuids: Sequence[UUID]) -> None:
    """Note that the peer with the endpoint ``origin`` has what it has just sent, whether it may or not."""
    if not is_filtered(resource) or not origin:
        return
    peer = Peer.objects.filter(url__iexact=origin.rpartition("/")[0]).first()
    if peer is None or resource.queryset_for(peer) is None:
        return
    scopes = ScopedResource.objects.using(resource.database)
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind, local_key__isnull=False)
    for chunk in chunks(uuids):
        tracked = list(rows.filter(uuid__in=chunk))
        scopes.filter(peer=peer, resource__in=tracked).update(is_withdrawn=False)
        scopes.bulk_create((ScopedResource(peer=peer, resource=row) for row in tracked), ignore_conflicts=True)


def _keys(resource: SyncResource, rows: models.QuerySet[Any] | None) -> set[str] | None:
    if rows is None:
        return None
    pk = resource.model._meta.pk
    return {key_text(pk, value) for value in rows.using(resource.database).values_list("pk", flat=True)}


def _enter(resource: SyncResource, stored: StoredDigest, peer: Peer, known: Digest | None, keys: set[str]) -> None:
    scopes = ScopedResource.objects.using(resource.database)
    for tracked in _tracked(resource, keys):
        back = scopes.filter(peer=peer, resource__in=[row.pk for row in tracked])
        returning = set(back.values_list("resource_id", flat=True))
        back.update(is_withdrawn=False)
        scopes.bulk_create(ScopedResource(peer=peer, resource=row) for row in tracked if row.pk not in returning)
        _number_again(resource, stored, known, tracked)


def _leave(resource: SyncResource, stored: StoredDigest, peer: Peer, known: Digest | None, keys: set[str]) -> None:
    scopes = ScopedResource.objects.using(resource.database).filter(peer=peer)
    for tracked in _tracked(resource, keys):
        scopes.filter(resource__in=[row.pk for row in tracked]).update(is_withdrawn=True)
        _number_again(resource, stored, known, tracked)


def _tracked(resource: SyncResource, keys: set[str]) -> Iterable[list[TrackedResource]]:
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind)
    for chunk in chunks(keys):
        yield list(rows.filter(local_key__in=chunk))


def _number_again(
    resource: SyncResource, stored: StoredDigest, known: Digest | None, tracked: list[TrackedResource]
) -> None:
    """Have those numbered anew of whose present numbers the peer will not hear any more."""
    contained = [row.pk for row in tracked if known is None or _contains(stored, known, row)]
    TrackedResource.objects.using(resource.database).filter(pk__in=contained, tick__isnull=False).update(
        mark=Coalesce("mark", F("stamp")), mark_user=F("user"), etag=ANEW, is_intent=False
    )


def _contains(stored: StoredDigest, known: Digest, row: TrackedResource) -> bool:
    if row.endpoint_id is None or row.tick is None:
        return False
    state = SyncState(endpoint=stored.endpoint_url(row.endpoint_id), tick=row.tick, stamp=row.stamp)
    return known.contains(state)
