"""Leave versions that are larger than one peer accepts out of the feeds to that peer, and retry them.

At the end of a catch-up feed the peer's digest contains the left-out version too. So the resource gets a new tick when
the peer can accept its version. A version that replaces it, perhaps a smaller one, has a tick of its own anyway.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db.models import F, Q, QuerySet

from ...models import OversizeVersion, Peer, TrackedResource
from ..db.clock import lies_ahead, now
from ..log.wakeup import wake_after_commit

if TYPE_CHECKING:
    from ...kind import Kind

logger = logging.getLogger(__name__)

#: The number of bytes that are reserved for the parts of a feed other than its entries.
HEADING_BYTES = 64 * 1024
FIRST_PAUSE_MILLIS = 10 * 60 * 1000
LONGEST_PAUSE_MILLIS = 24 * 60 * 60 * 1000


class PeerLimit:
    """Hold which versions of a kind are left out of the feeds to ``peer``.

    For a client that is no peer (``None``) nothing is stored. ``max_bytes`` is the size of the largest feed that the
    target accepts, if it has told it; a version that does not fit is left out from then on. ``count`` is the number of
    left-out versions.
    """

    def __init__(self, kind: Kind, peer: Peer | None, *, max_bytes: int | None = None) -> None:
        self._kind = kind
        self._peer = peer
        self.max_bytes = None if max_bytes is None else max_bytes - min(HEADING_BYTES, max_bytes // 2)
        rows = _present(kind, peer).values_list("resource_id", "endpoint_id", "tick")
        self._held = {pk: (endpoint, tick) for pk, endpoint, tick in rows}

    @property
    def count(self) -> int:
        """Return the number of versions that are left out for the peer."""
        return len(self._held)

    def leaves_out(self, row: TrackedResource) -> bool:
        """Return True if the present version of ``row`` is left out for the peer."""
        return self._held.get(row.pk) == (row.endpoint_id, row.tick)

    def is_exceeded(self, row: TrackedResource, entry: str) -> bool:
        """Return True if the rendered ``entry`` of ``row`` does not fit into a feed; it is left out from then on."""
        if self.max_bytes is None or len(entry) * 4 <= self.max_bytes:
            return False
        size = len(entry.encode())
        if size <= self.max_bytes:
            return False
        self.hold(row, size, f"larger than the {self.max_bytes} bytes that the peer accepts")
        return True

    def hold(self, row: TrackedResource, size_bytes: int, reason: str) -> None:
        """Leave the present version of ``row`` out of the feeds to the peer, and log the ``reason``."""
        logger.error(
            "%s('%s') is left out of feeds to %s: its entry has %d bytes, %s",
            self._kind.name,
            row.local_key or row.uuid,
            self._peer,
            size_bytes,
            reason,
        )
        endpoint, tick = row.endpoint_id or 0, row.tick or 0
        self._held[row.pk] = (endpoint, tick)
        if self._peer is None:
            return
        OversizeVersion.objects.using(self._kind.database).update_or_create(
            peer_id=self._peer.pk,
            resource=row,
            defaults={
                "endpoint_id": endpoint,
                "tick": tick,
                "size_bytes": size_bytes,
                "reason": reason[:2000],
                "held_since": now(),
                "attempts": 1,
                "retry_at": now() + FIRST_PAUSE_MILLIS,
            },
        )

    def due(self, *, at_once: bool) -> list[TrackedResource]:
        """Return the resources whose left-out version is due for a retry; with ``at_once`` all of them.

        Left-out versions that were replaced by newer ones are deleted from the database.
        """
        present = _present(self._kind, self._peer)
        stale = _held(self._kind, self._peer).exclude(pk__in=present.values("pk"))
        stale.filter(pk__in=list(stale.values_list("pk", flat=True))).delete()
        return [
            h.resource
            for h in present.select_related("resource")
            if at_once or not lies_ahead(h.retry_at, LONGEST_PAUSE_MILLIS)
        ]

    def release_fitting(self) -> bool:
        """Mark the resources whose left-out versions fit into ``max_bytes`` for new ticks; return True if any did."""
        fitting = _present(self._kind, self._peer).filter(size_bytes__lte=self.max_bytes or 0)
        rows = [held.resource for held in fitting.select_related("resource")]
        for row in rows:
            self.release(row)
        return bool(rows)

    def postpone(self, row: TrackedResource) -> None:
        """Record that the peer has refused the version of ``row`` again; each pause is longer than the one before."""
        for held in _held(self._kind, self._peer).filter(resource=row):
            pause = min(FIRST_PAUSE_MILLIS * 2 ** min(held.attempts, 20), LONGEST_PAUSE_MILLIS)
            OversizeVersion.objects.using(self._kind.database).filter(pk=held.pk).update(
                attempts=F("attempts") + 1, retry_at=now() + pause
            )

    def release(self, row: TrackedResource) -> None:
        """Mark ``row`` for a new tick, because the peer accepts its version now."""
        self._held.pop(row.pk, None)
        _held(self._kind, self._peer).filter(resource=row).delete()
        TrackedResource.objects.using(self._kind.database).filter(
            pk=row.pk, tick=row.tick, endpoint=row.endpoint_id, mark__isnull=True, local_key__isnull=False
        ).update(mark=now(), is_intent=False, mark_user=F("user"), restamp=True)
        wake_after_commit(self._kind.name, self._kind.database)


#: The condition that the left-out version is the present version of its resource.
_IS_PRESENT = Q(endpoint_id=F("resource__endpoint_id"), tick=F("resource__tick"))


def _of_kind(kind: Kind) -> QuerySet[OversizeVersion]:
    return OversizeVersion.objects.using(kind.database).filter(resource__kind=kind.name)


def _held(kind: Kind, peer: Peer | None) -> QuerySet[OversizeVersion]:
    return _of_kind(kind).filter(peer=peer and peer.pk)


def _present(kind: Kind, peer: Peer | None) -> QuerySet[OversizeVersion]:
    return _held(kind, peer).filter(_IS_PRESENT)


def oversize_names(kind: Kind) -> dict[int, list[str]]:
    """Return the names and sizes of the resources whose present version is left out, by primary key of the peer."""
    found: dict[int, list[str]] = {}
    for version in _of_kind(kind).filter(_IS_PRESENT).select_related("resource").order_by("pk"):
        name = version.resource.local_key or version.resource.uuid
        found.setdefault(version.peer_id, []).append(f"{kind.name}('{name}') of {version.size_bytes} bytes")
    return found
