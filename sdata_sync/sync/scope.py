"""Filter the resources that a peer may have: withdraw rows that leave its scope, resend rows that enter it.

A row can leave or enter the scope of a peer without being changed itself. The row keeps its sync state then. The
resource is noted in ``ScopedResource`` and sent again to that peer, ahead of the changes that the digest of the
peer lacks, with ``dss:scoped``.

A node that a filter gives only some rows of a kind has a *partial replica*. At the end of a catch-up feed a target
takes over the digest of the source. A partial replica takes it over too, so a third node that believed the digest
of a partial replica would never get the other rows. Therefore a partial replica exchanges the kind with the node
that filters it, and with no other node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models

from ..core.state import FIRST_TICK, SyncState, same_endpoint
from ..exceptions import FeedRefused
from ..kind import Kind
from ..models import Digest as DigestRow
from ..models import ScopedResource, Stream, TrackedResource
from .db.retry import atomically
from .db.statements import chunks
from .log.digests import StoredDigest, lock_digest
from .log.keys import key_text, key_values

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..models import Peer
    from .trust import Speaker


def update_partial(kind: Kind, ours: Digest, source: Digest, speaker: Speaker) -> None:
    """Record whether this node's replica is partial or full, after a feed with the digest ``source`` was applied.

    The caller holds the digest's lock. Only an enabled peer is believed, because a partial replica exchanges the kind
    with the node that filters it and with no other node.
    """
    digests = DigestRow.objects.using(kind.database)
    if speaker.filters_us(source):
        digests.update_or_create(pk=kind.name, defaults={"part_of": source.part_of})
    elif (
        ours.part_of and same_endpoint(ours.part_of, source.origin) and not source.part_of and speaker.peer is not None
    ):
        digests.filter(pk=kind.name).update(part_of="")


def check_partial_exchange(kind: Kind, ours: Digest, theirs: Digest) -> None:
    """Refuse to exchange a kind if one of the two nodes has a partial replica that the other one does not filter.

    Raises:
        FeedRefused: this node or the origin of ``theirs`` has a partial replica that a third node filters.
    """
    if ours.part_of and not same_endpoint(ours.part_of, theirs.origin):
        raise FeedRefused(
            f"{kind.endpoint} has a partial replica, which {ours.part_of} filters; it is exchanged with "
            f"that node and with no other. Received a digest of {theirs.origin or 'an unnamed endpoint'}.",
            application_code="HoldsPart",
            payload_path="digest",
        )
    is_theirs = theirs.part_of and not same_endpoint(theirs.part_of, theirs.origin)
    if is_theirs and not same_endpoint(theirs.part_of, kind.endpoint):
        raise FeedRefused(
            f"{theirs.origin} has a partial replica, which {theirs.part_of} filters; it is exchanged with that "
            f"node and with no other.",
            application_code="HoldsPart",
            payload_path="digest",
        )


#: The condition of resources that must be resent and can be sent: they have a tick and are not deferred.
_NEEDS_RESEND: dict[str, Any] = {"needs_resend": True, "resource__tick__isnull": False, "resource__is_deferred": False}


def scope_of(kind: Kind, peer: Peer | None) -> models.QuerySet[Any] | None:
    """Return the rows that ``peer`` may have; ``None`` for all of them."""
    return kind.declared.queryset_for(peer) if kind.is_filtered else None


@dataclass(frozen=True, eq=False)
class RowScope:
    """Hold ``allowed``, the only rows of a kind that ``peer`` may read and write."""

    kind: Kind
    peer: Peer | None
    allowed: models.QuerySet[Any]

    def among(self, keys: Iterable[str]) -> set[str]:
        """Return those of the local ``keys`` that the peer may have.

        It makes a query also without keys, so that the number of queries does not tell which rows exist.
        """
        pk, found = self.kind.model._meta.pk, set[str]()
        rows = self.allowed.using(self.kind.database).values_list("pk", flat=True)
        wanted = key_values(pk, list(keys))
        if not wanted:
            list(rows[:1])
        for chunk in chunks(wanted):
            found.update(key_text(pk, value) for value in rows.filter(pk__in=chunk))
        return found

    def of(self, kind: Kind) -> RowScope | None:
        """Return the rows of another kind that the same peer may have; ``None`` if it may have all of them."""
        return row_scope(kind, self.peer)


def row_scope(kind: Kind, peer: Peer | None) -> RowScope | None:
    """Return the rows of ``kind`` that ``peer`` may have; ``None`` if it may have all of them."""
    allowed = scope_of(kind, peer)
    return None if allowed is None else RowScope(kind, peer, allowed)


@dataclass(frozen=True)
class Scope:
    """Hold what ``peer`` has of a filtered kind, as of the last ``review``; the filter may be stricter by now."""

    kind: Kind
    peer: Peer | None

    def sorted_out(self, tracked: Sequence[TrackedResource]) -> dict[int, bool]:
        """Return those of ``tracked`` that are sent to the peer, by primary key, with True for withdrawn ones."""
        allowed = self._allowed(row.local_key for row in tracked)
        if self.peer is None:  # the client is no peer: what it has is not stored
            return {row.pk: False for row in tracked if row.local_key in allowed and not row.is_deferred}
        found: dict[int, bool] = {}
        for chunk in chunks(row.pk for row in tracked):
            found.update(self._rows().filter(resource__in=chunk).values_list("resource_id", "is_withdrawn"))
        return {
            # A deferred version is in no row yet that the filter could select.
            row.pk: found[row.pk] or (row.local_key is not None and row.local_key not in allowed)
            for row in tracked
            if row.pk in found and not row.is_deferred
        }

    def _allowed(self, keys: Iterable[str | None]) -> set[str]:
        rows = self.kind.declared.queryset_for(self.peer)
        return _among(self.kind, rows, [key for key in keys if key is not None])

    def _rows(self) -> models.QuerySet[ScopedResource]:
        return _scopes_of(self.kind, self.peer)

    def has(self, uuid: UUID) -> bool:
        """Return True if the peer has the resource ``uuid`` and may have it."""
        return self._rows().filter(resource__uuid=uuid, is_withdrawn=False).exists()

    def resends(self, *, after: int, limit: int) -> list[TrackedResource]:
        """Return the first ``limit`` resources that must be resent, although the peer's digest contains them.

        They are ordered by endpoint and tick. ``after`` is the primary key of the resource after which to continue; 0
        begins with the first.
        """
        rows = self._resends()
        last = TrackedResource.objects.using(self.kind.database).filter(pk=after)
        for key, tick in last.values_list("endpoint__key", "tick") if after else ():
            rows = rows.filter(models.Q(endpoint__key__gt=key) | models.Q(endpoint__key=key, tick__gt=tick))
        return list(rows.order_by("endpoint__key", "tick")[:limit])

    def _resends(self) -> models.QuerySet[TrackedResource]:
        rows = TrackedResource.objects.using(self.kind.database)
        if self.peer is None:
            return rows.none()
        return rows.filter(pk__in=self._rows().filter(**_NEEDS_RESEND).values("resource"))

    def mark_resent(self, uuids: Iterable[UUID]) -> None:
        """Record that the resources ``uuids`` were resent to the peer."""
        for chunk in chunks(uuids):
            self._rows().filter(needs_resend=True, resource__uuid__in=chunk).update(needs_resend=False)

    def count_resends(self) -> int:
        """Return the number of resources that must be resent, although the peer's digest contains them."""
        return self._resends().count()

    def count(self, tracked: models.QuerySet[TrackedResource]) -> int:
        """Return how many of ``tracked`` are sent to the peer."""
        if self.peer is None:
            return 0
        return tracked.filter(scopes__peer=self.peer).count()


def has_resends(kind: Kind, peer: Peer | None) -> bool:
    """Return True if a resource must be resent to ``peer``, although the peer's digest contains it."""
    if peer is None or not kind.is_filtered:
        return False
    return _scopes_of(kind, peer).filter(**_NEEDS_RESEND).exists()


def scope_for(kind: Kind, peer: Peer | None) -> Scope | None:
    """Return the scope of ``peer`` if it may have only some rows, or ``None`` if it may have all of them.

    A peer that may have all rows since its last ``review`` keeps a scope until the rows that it lacked are resent.
    """
    if kind.is_filtered and (kind.declared.queryset_for(peer) is not None or has_resends(kind, peer)):
        return Scope(kind, peer)
    return None


def is_to_become_full(kind: Kind, peer: Peer, shown: Digest) -> bool:
    """Return True if ``peer`` calls its replica partial, may have all rows now, and nothing must be resent to it.

    It learns from the next feed, even from an empty one, that its replica is full.
    """
    return same_endpoint(shown.part_of, kind.endpoint) and scope_for(kind, peer) is None


def mark_partial(kind: Kind, peer: Peer) -> None:
    """Record, before ``peer`` gets a partial replica, that its digest may contain changes that it was not sent."""
    Stream.objects.update_or_create(peer=peer, kind=kind.name, defaults={"is_partial": True})


def mark_full(kind: Kind, peer: Peer) -> None:
    """Record that ``peer`` has a full replica and nothing must be resent: its digest alone tells what it has."""
    if Stream.objects.filter(peer=peer.pk, kind=kind.name, is_partial=True).update(is_partial=False):
        _scopes_of(kind, peer).delete()


def _scopes_of(kind: Kind, peer: Peer | None) -> models.QuerySet[ScopedResource]:
    scopes = ScopedResource.objects.using(kind.database)
    return scopes.filter(peer=peer and peer.pk, resource__kind=kind.name)


def review(kind: Kind, peer: Peer | None, known: Digest | None) -> None:
    """Compare what ``peer`` has with what it may have, and record the resources that must be resent to it.

    ``known`` is the peer's digest, or ``None`` if it is not known. The keys of all rows that the peer may have are
    read.
    """
    if peer is not None and kind.is_filtered:
        atomically(kind.database, partial(_review_under_lock, kind, peer, known))


def _review_under_lock(kind: Kind, peer: Peer, known: Digest | None) -> None:
    stored = lock_digest(kind)
    allowed = _keys(kind, kind.declared.queryset_for(peer))
    scopes = _scopes_of(kind, peer)
    was_given = Stream.objects.filter(peer=peer.pk, kind=kind.name, is_partial=True).exists()
    if allowed is None:
        if not was_given:
            scopes.delete()  # they only record what the peer has sent itself
            return
        allowed = _keys(kind, kind.rows()) or set()
    active = scopes.filter(is_withdrawn=False, resource__local_key__isnull=False)
    present = {key for key in active.values_list("resource__local_key", flat=True) if key is not None}
    for tracked in _tracked(kind, allowed - present):
        _record(kind, stored, peer, known, tracked, is_withdrawn=False)
    for tracked in _tracked(kind, present - allowed):
        _record(kind, stored, peer, known, tracked, is_withdrawn=True)
    if known is not None and not was_given and _may_have_all(kind, peer, known):
        _record_outside(kind, stored, peer, known, allowed)


def _may_have_all(kind: Kind, peer: Peer, known: Digest) -> bool:
    """Return True if ``peer`` may have rows from before the filter existed, or from another node."""
    if same_endpoint(known.part_of, kind.endpoint):
        return False
    own = peer.endpoint(kind.name)
    return any(entry.tick > FIRST_TICK and not same_endpoint(entry.endpoint, own) for entry in known)


def _record_outside(kind: Kind, stored: StoredDigest, peer: Peer, known: Digest, allowed: set[str]) -> None:
    """Record the resources that ``peer`` may still have and must delete: rows outside its scope, and deleted rows.

    The peer may have an older version of a row that was changed since. So it is also sent the uuid of a row that it
    never had.
    """
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    for chunk in chunks(rows.exclude(scopes__peer=peer.pk).values_list("pk", flat=True)):
        found = list(rows.filter(pk__in=chunk))
        outside = [row for row in found if row.local_key is not None and row.local_key not in allowed]
        gone = [row for row in found if row.local_key is None and row.is_deleted and not _contains(stored, known, row)]
        _record(kind, stored, peer, known, outside, is_withdrawn=True)
        _record(kind, stored, peer, known, gone, is_withdrawn=False)


def _record(
    kind: Kind,
    stored: StoredDigest,
    peer: Peer,
    known: Digest | None,
    tracked: list[TrackedResource],
    *,
    is_withdrawn: bool,
) -> None:
    """Record that the resources ``tracked`` have entered or left a scope; resend those that ``known`` contains.

    ``known`` is the digest of ``peer``. If it is ``None``, all of them are resent.
    """
    scopes = ScopedResource.objects.using(kind.database)
    present = scopes.filter(peer=peer.pk, resource__in=[row.pk for row in tracked])
    noted = set(present.values_list("resource_id", flat=True))
    present.update(is_withdrawn=is_withdrawn)
    scopes.bulk_create(
        ScopedResource(peer_id=peer.pk, resource_id=row.pk, is_withdrawn=is_withdrawn)
        for row in tracked
        if row.pk not in noted
    )
    own = peer.endpoint(kind.name)
    resends = [row for row in tracked if known is None or _contains(stored, known, row)]
    if not is_withdrawn:  # the peer has the versions that it has made itself
        resends = [row for row in resends if row.pk in noted or not _is_of(stored, row, own)]
    scopes.filter(peer=peer.pk, resource__in=resends).update(needs_resend=True)


def _is_of(stored: StoredDigest, row: TrackedResource, endpoint: str) -> bool:
    return row.endpoint_id is not None and same_endpoint(stored.endpoint_url(row.endpoint_id), endpoint)


def remember(kind: Kind, peer: Peer | None, uuids: Sequence[UUID]) -> None:
    """Record that ``peer`` has the resources that it has just sent; withdraw those it may not have."""
    if not kind.is_filtered or peer is None:
        return
    allowed_rows = kind.declared.queryset_for(peer)
    if allowed_rows is None:
        return
    scopes = ScopedResource.objects.using(kind.database)
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name, local_key__isnull=False)
    for chunk in chunks(uuids):
        tracked = list(rows.filter(uuid__in=chunk))
        allowed = _among(kind, allowed_rows, [row.row_key for row in tracked])
        inside = [row for row in tracked if row.local_key in allowed]
        outside = [row for row in tracked if row.local_key not in allowed]
        for some, is_withdrawn in ((inside, False), (outside, True)):
            scopes.bulk_create(
                (ScopedResource(peer_id=peer.pk, resource_id=row.pk) for row in some), ignore_conflicts=True
            )
            scopes.filter(peer=peer.pk, resource__in=some).update(is_withdrawn=is_withdrawn)
        scopes.filter(peer=peer.pk, resource__in=outside).update(needs_resend=True)


def resend_again(kind: Kind, tracked: TrackedResource) -> None:
    """Resend ``tracked`` to the filtered peers: its deferred version was written under its old state."""
    if kind.is_filtered:
        ScopedResource.objects.using(kind.database).filter(resource=tracked).update(needs_resend=True)


def _among(kind: Kind, rows: models.QuerySet[Any] | None, keys: Sequence[str]) -> set[str]:
    """Return those of ``keys`` that are among ``rows``; all of them if ``rows`` is ``None``."""
    if rows is None or not keys:
        return set(keys)
    pk = kind.model._meta.pk
    wanted = key_values(pk, keys)
    return {key_text(pk, v) for v in rows.using(kind.database).filter(pk__in=wanted).values_list("pk", flat=True)}


def _keys(kind: Kind, rows: models.QuerySet[Any] | None) -> set[str] | None:
    if rows is None:
        return None
    pk = kind.model._meta.pk
    return {key_text(pk, value) for value in rows.using(kind.database).values_list("pk", flat=True)}


def _tracked(kind: Kind, keys: set[str]) -> Iterable[list[TrackedResource]]:
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    for chunk in chunks(keys):
        yield list(rows.filter(local_key__in=chunk))


def _contains(stored: StoredDigest, known: Digest, row: TrackedResource) -> bool:
    if row.endpoint_id is None or row.tick is None:
        return False
    state = SyncState(endpoint=stored.endpoint_url(row.endpoint_id), tick=row.tick, stamp=row.stamp)
    return known.contains(state)
