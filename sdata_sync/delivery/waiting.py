"""Remember the entries that wait at a peer: those that it deferred or refused, by its results and its digest.

The digests of two nodes may be equal while an entry waits at one of them. So "in sync" also means that nothing waits.
A peer that is a node of this software tells with its digest how many of its resources wait: deferred entries, rows
that lack a reference to a resource which has not arrived, and changes that it cannot send. Of other peers the last
results are known.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.utils import timezone

from ..core.digest import Digest
from ..core.state import same_endpoint
from ..core.text import fold
from ..models import Endpoint, Peer, Stream, TrackedResource
from ..models.tracked import NO_KEY
from ..sync.content.deferred import waiting_resources
from ..sync.content.rows import read_instances_apart
from ..sync.db.clock import now
from ..sync.db.faults import ends_page

if TYPE_CHECKING:
    from ..atom.entry import ReceivedResult
    from ..kind import Kind

#: The number of waiting entries that are kept and named.
KEPT, NAMED = 100, 3

logger = logging.getLogger(__name__)

#: The primary keys of peers, and the names that they give themselves and have not here; each is logged once.
_other_names: set[tuple[int, str]] = set()


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The entries of one kind that wait at a node; ``told_at`` is when the node told it, ``None`` for this node."""

    count: int
    where: str
    names: tuple[str, ...] = ()
    told_at: datetime | None = None

    def __str__(self) -> str:
        text = f"{self.count} {'entries wait' if self.count > 1 else 'entry waits'} {self.where}"
        if self.names:
            named = self.names[:NAMED]
            text += f": {', '.join(named)}{' …' if self.count > len(named) else ''}"
        return text if self.told_at is None else f"{text} (as last told at {self.told_at:%Y-%m-%d %H:%M} UTC)"


def note_results(stream: Stream, sent: Collection[UUID], exceptions: Iterable[ReceivedResult]) -> None:
    """Store which of the entries ``sent`` wait at the peer now, by its results; ``exceptions`` are those but 200."""
    known = set(stream.waiting_uuids.split())
    waiting = {str(result.uuid) for result in exceptions if result.uuid is not None and _waits(result.status)}
    uuids = (known - set(map(str, sent))) | waiting
    if uuids != known:
        others = max(stream.waiting - len(known), 0)
        _store(stream, others + len(uuids), uuids)


def _waits(status: int) -> bool:
    return status == 202 or (status >= 400 and status != 409)  # 409: another version won, and nothing waits


def note_digest(peer: Peer, kind: str, shown: Digest) -> None:
    """Store what the digest of ``kind`` tells of ``peer``: that it has the kind, and how many entries wait there."""
    if shown.origin and not same_endpoint(shown.origin, peer.endpoint(kind)):
        _note_other_name(peer, kind, shown.origin)
    for stream in Stream.objects.filter(peer=peer.pk, kind=kind):
        if not stream.is_shared:
            Stream.objects.filter(pk=stream.pk).update(is_shared=True)
        if shown.waiting is not None and shown.waiting != stream.waiting:
            _store(stream, shown.waiting, stream.waiting_uuids.split() if shown.waiting else ())


def _note_other_name(peer: Peer, kind: str, origin: str) -> None:
    """Store and log, once per process, that ``peer`` calls itself otherwise than it is called here."""
    if (peer.pk, origin) in _other_names:
        return
    _other_names.add((peer.pk, origin))
    url = origin.rpartition("/")[0]
    note = f"{peer} calls itself so, and is {peer.endpoint(kind)} here. Remove the peer and add it as {url}."
    logger.warning("%s: %s", origin, note)
    Endpoint.objects.update_or_create(
        key=fold(origin),
        defaults={"anomaly_at": timezone.now(), "anomaly_note": note},
        create_defaults={
            "url": origin,
            "anomaly_at": timezone.now(),
            "anomaly_note": note,
        },
    )


def _store(stream: Stream, count: int, uuids: Collection[str]) -> None:
    stream.waiting, stream.waiting_at = count, now()
    stream.waiting_uuids = " ".join(sorted(uuids)[:KEPT])
    Stream.objects.filter(pk=stream.pk).update(
        waiting=count, waiting_at=stream.waiting_at, waiting_uuids=stream.waiting_uuids
    )


def waiting_there(kind: Kind, stream: Stream) -> Waiting | None:
    """Return the entries that wait at the peer of ``stream``, ``None`` if none is known."""
    if not stream.waiting:
        return None
    uuids = [UUID(uuid) for uuid in stream.waiting_uuids.split()[:NAMED]]
    told_at = datetime.fromtimestamp(stream.waiting_at / 1000, tz=UTC)
    return Waiting(count=stream.waiting, where=f"at {stream.peer}", names=tuple(_names(kind, uuids)), told_at=told_at)


def waiting_here(kind: Kind) -> Waiting | None:
    """Return the deferred entries and incomplete rows of this node, ``None`` if there is none.

    Changes that are held back here are named by the direction that does not send them.
    """
    deferred, incomplete, _ = waiting_resources(kind)
    uuids = dict.fromkeys(uuid for rows in (deferred, incomplete) for uuid in rows.values_list("uuid", flat=True))
    if not uuids:
        return None
    return Waiting(count=len(uuids), where="here", names=tuple(_names(kind, list(uuids)[:NAMED])))


def just_told(waiting: Waiting) -> Waiting:
    """Return ``waiting`` without the time, for a count that was read this moment."""
    return replace(waiting, told_at=None)


def _names(kind: Kind, uuids: list[UUID]) -> list[str]:
    """Return the rows of ``uuids`` as text; the uuid where there is no row or it cannot be shown."""
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name, uuid__in=uuids)
    keys = {row.uuid: row.row_key for row in rows}
    instances, _ = read_instances_apart(kind, list(keys.values()))
    return [f"{kind.name} {_shown(instances.get(keys.get(uuid, NO_KEY)), uuid)!r}" for uuid in uuids]


def _shown(instance: object, uuid: UUID) -> str:
    try:
        return str(uuid) if instance is None else str(instance)
    except Exception as error:  # __str__ is the application's
        if ends_page(error):
            raise
        return str(uuid)
