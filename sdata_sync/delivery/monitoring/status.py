"""Collect the status of each kind and peer, for ``sync_status`` and the admin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.db.models import Min

from ...conf import conf
from ...core.ranges import missing_ranges
from ...core.state import same_endpoint
from ...core.text import fold
from ...models import Digest as DigestRow
from ...models import Endpoint, Peer, Stream, TrackedResource
from ...registry import registry
from ...sync.apply.receive import OUTCOMES
from ...sync.content.deferred import deferred_entries, incomplete_rows
from ...sync.db.clock import lies_ahead, now
from ...sync.log.digests import StoredDigest, load_digest
from ...sync.log.marks import BY_RECEIVER
from ...sync.select.oversize import oversize_names
from ..lease import is_backing_off, known_digest
from ..session import undone_errands
from ..waiting import waiting_there

if TYPE_CHECKING:
    from ...kind import Kind


@dataclass(frozen=True, kw_only=True)
class StreamStatus:
    """The status of one kind at one peer; ``reason`` states why the peer lacks changes, and is empty if it lacks none.

    ``ticks_behind`` is the number of ticks that the peer lacks; ``None`` if its digest is not known. ``seconds_behind``
    is the age of the oldest change of this node that the peer lacks, with or without a tick; ``None`` if the digest is
    not known. ``held`` names the versions that feeds to the peer leave out because they are too large. ``waiting`` is
    the number of entries that the peer has deferred or refused, as it last told. ``is_shared`` is False if the peer has
    no such kind. Counted since the installation:
    ``passes``, of these ``failed_passes``, the ``busy_seconds`` of all passes, and ``delivered`` entries.
    """

    peer: str
    is_immediate: bool
    ticks_behind: int | None
    seconds_behind: float | None
    failures: int
    passes: int
    failed_passes: int
    busy_seconds: float
    delivered: int
    last_success: datetime | None
    last_error: str
    last_error_at: datetime | None
    reason: str
    held: tuple[str, ...] = ()
    waiting: int = 0
    is_shared: bool = True

    @property
    def is_level(self) -> bool:
        """Whether the peer lacks no tick by its last known digest, no delivery fails, and no entry is left or waits.

        A stream of a kind that the peer does not have lacks nothing.
        """
        if not self.is_shared:
            return True
        return self.ticks_behind == 0 and not self.failures and not self.held and not self.waiting


@dataclass(frozen=True, kw_only=True)
class KindStatus:
    """The status of one kind at this node.

    ``tick`` is the tick of the next change. ``unnumbered`` changes have no tick yet, ``held_back`` changes cannot be
    read or rendered, ``deferred`` entries cannot be applied, ``unfilled`` rows lack a reference to a resource that has
    not arrived. ``received`` counts the received entries since the
    installation by outcome: applied, ignored because they were contained, lost in a conflict, deferred. ``conflicts``
    counts won and lost conflicts. ``is_behind`` is True while changes that this node lost in a restore are missing: no
    tick is assigned until they are back. ``rejoined`` is a note of the last time that a peer had a higher tick of this
    node than the node itself. ``former_url`` is the URL of the endpoint before ``BASE_URL`` was changed.
    """

    kind: str
    endpoint: str
    tick: int
    unnumbered: int
    held_back: int
    deferred: int
    unfilled: int
    received: dict[str, int]
    conflicts: int
    is_behind: bool
    rejoined: str
    rejoined_at: datetime | None
    streams: tuple[StreamStatus, ...]
    former_url: str = ""
    #: What other apps have not done yet for received rows, for example fetch their files.
    undone: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether each change of this node has a tick, each received entry is applied, and its URL is the same."""
        return not (
            self.unnumbered
            or self.held_back
            or self.deferred
            or self.unfilled
            or self.is_behind
            or self.former_url
            or self.undone
        )

    @property
    def incomplete(self) -> str:
        """What is incomplete at this node, as a text; empty if nothing is."""
        counts = (
            (self.unnumbered, "without a tick yet"),
            (self.held_back, "held back: see the tracked resources in the admin"),
            (self.deferred, "deferred here"),
            (self.unfilled, "without a reference whose target has not arrived"),
        )
        said = [f"{count} {what}" for count, what in counts if count]
        said += ["BASE_URL was changed"] if self.former_url else []
        return ", ".join([*said, *([self.undone] if self.undone else [])])


@dataclass(frozen=True, kw_only=True)
class ClockWarning:
    """An endpoint whose stamps were ahead of the clock of this node."""

    endpoint: str
    ahead_seconds: float
    seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class CloneWarning:
    """An endpoint of which two different changes with one tick were received."""

    endpoint: str
    note: str
    seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AnomalyWarning:
    """An endpoint whose digest made a claim that cannot be true; the claim is not believed."""

    endpoint: str
    note: str
    seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of this node."""

    node: str
    kinds: tuple[KindStatus, ...]
    clocks: tuple[ClockWarning, ...]
    clones: tuple[CloneWarning, ...]
    anomalies: tuple[AnomalyWarning, ...] = ()

    @property
    def strangers(self) -> list[str]:
        """The peers that have none of the kinds of this node; the URL of such a peer is probably wrong."""
        streams = [stream for kind in self.kinds for stream in kind.streams]
        return sorted({stream.peer for stream in streams} - {stream.peer for stream in streams if stream.is_shared})

    @property
    def is_level(self) -> bool:
        """Whether every enabled peer has all changes, and this node is complete.

        It is not complete while a change has no tick, a received entry is deferred, or a restore gap is not recovered.
        """
        return not self.strangers and all(
            kind.is_complete and all(stream.is_level for stream in kind.streams) for kind in self.kinds
        )

    def problems_with(self, peer: str) -> list[str]:
        """Return, for each kind that is not known to be in sync with ``peer``, what is missing or waits."""
        found = ["it has none of the kinds of this node"] if peer in self.strangers else []
        for kind in self.kinds:
            streams = [stream for stream in kind.streams if stream.peer == peer and not stream.is_level]
            reasons = [stream.reason or "its digest is not known" for stream in streams]
            if not kind.is_complete:
                reasons.append(kind.incomplete or "changes that this node lost in a restore are missing")
            found += [f"{kind.kind}: {reason}" for reason in reasons]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the status as plain values for JSON."""
        return {**asdict(self), "is_level": self.is_level}


def collect_status(node: str) -> Status:
    """Return the status of each kind and peer, from the database alone (no network)."""
    peers = list(Peer.objects.filter(enabled=True))
    clocks = (
        ClockWarning(endpoint=row.url, ahead_seconds=row.clock_ahead / 1000, seen_at=row.clock_ahead_at)
        for row in Endpoint.objects.filter(clock_ahead__gt=0)
    )
    clones = (
        CloneWarning(endpoint=row.url, note=row.clone_note, seen_at=row.clone_seen_at)
        for row in Endpoint.objects.filter(clone_seen_at__isnull=False)
    )
    anomalies = (
        AnomalyWarning(endpoint=row.url, note=row.anomaly_note, seen_at=row.anomaly_at)
        for row in Endpoint.objects.filter(anomaly_at__isnull=False)
    )
    kinds = (_of_kind(kind, peers) for kind in registry)
    return Status(node=node, kinds=tuple(kinds), clocks=tuple(clocks), clones=tuple(clones), anomalies=tuple(anomalies))


def _of_kind(kind: Kind, peers: Iterable[Peer]) -> KindStatus:
    stored = load_digest(kind)
    row = DigestRow.objects.using(kind.database).filter(pk=kind.name).first() or DigestRow(pk=kind.name)
    tracked = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    oldest = tracked.filter(mark__gt=BY_RECEIVER, problem="").aggregate(mark=Min("mark"))["mark"]
    held = oversize_names(kind)
    streams = {stream.peer_id: stream for stream in Stream.objects.filter(kind=kind.name).select_related("peer")}
    return KindStatus(
        kind=kind.name,
        endpoint=kind.endpoint,
        tick=stored.value.tick(kind.endpoint),
        unnumbered=tracked.filter(mark__isnull=False, problem="").count(),
        held_back=tracked.filter(mark__isnull=False).exclude(problem="").count(),
        deferred=deferred_entries(kind).count(),
        unfilled=incomplete_rows(kind).count(),
        received={name: getattr(row, name) for name in OUTCOMES},
        conflicts=row.conflicts,
        is_behind=row.gap_until is not None,
        rejoined=row.rejoined_note,
        rejoined_at=row.rejoined_at,
        former_url=stored.former_url,
        undone=undone_errands(kind.name),
        streams=tuple(
            _of_stream(
                kind,
                stored,
                streams.get(peer.pk) or Stream(peer=peer, kind=kind.name),
                oldest,
                held.get(peer.pk, []),
            )
            for peer in peers
        ),
    )


def _of_stream(
    kind: Kind, stored: StoredDigest, stream: Stream, oldest_mark: int | None, held: list[str]
) -> StreamStatus:
    return StreamStatus(
        peer=stream.peer.name,
        is_immediate=stream.peer.immediate,
        ticks_behind=ticks_behind(kind, stored, stream),
        seconds_behind=_seconds_behind(kind, stored, stream, oldest_mark),
        failures=stream.failures,
        passes=stream.passes,
        failed_passes=stream.failed_passes,
        busy_seconds=stream.busy_millis / 1000,
        delivered=stream.delivered,
        last_success=_moment(stream.last_success),
        last_error=stream.last_error,
        last_error_at=_moment(stream.last_error_at),
        reason=_reason(kind, stored, stream, held),
        held=tuple(held),
        waiting=stream.waiting,
        is_shared=stream.is_shared is not False,
    )


def _seconds_behind(kind: Kind, stored: StoredDigest, stream: Stream, oldest_mark: int | None) -> float | None:
    known = known_digest(stream)
    if known is None:
        return None
    moments = [] if oldest_mark is None else [oldest_mark]
    if known.tick(kind.endpoint) < stored.value.tick(kind.endpoint):
        lacking = TrackedResource.objects.using(kind.database).filter(
            kind=kind.name,
            endpoint=stored.ensure_endpoint_id(kind.endpoint),
            tick__gte=known.tick(kind.endpoint),
            stamp__gt=BY_RECEIVER,
        )
        moments += lacking.order_by("tick").values_list("stamp", flat=True)[:1]
    return max((now() - min(moments)) / 1000, 0.0) if moments else 0.0


def _reason(kind: Kind, stored: StoredDigest, stream: Stream, held: list[str]) -> str:
    if stream.is_shared is False:
        return f"not shared with {stream.peer}"
    if stream.known_ticks() is None:
        never = "" if stream.last_success else "nothing was ever delivered to it"
        failing = stream.last_error if stream.failures else ""
        return failing or never or "its digest is not known and is read at the next delivery"
    if stream.failures:
        wait = (stream.retry_at - now()) / 1000 if is_backing_off(stream) else 0
        return f"{stream.last_error} (tried again in {wait:.0f} s)"
    if not ticks_behind(kind, stored, stream):
        waiting = waiting_there(kind, stream)
        left_out = [f"larger than the peer accepts: {', '.join(held[:3])}"] if held else []
        return "; ".join([*left_out, *([] if waiting is None else [str(waiting)])])
    if lies_ahead(stream.held_until, int(conf.lease_seconds * 1000)):
        return f"being delivered by {stream.holder}"
    if not stream.peer.immediate:
        return "the peer has no immediate delivery: the next sync_catchup delivers"
    return "waiting for delivery: check that a process that delivers is running"


def _moment(millis: int) -> datetime | None:
    return datetime.fromtimestamp(millis / 1000, tz=UTC) if millis else None


def ticks_behind(kind: Kind, stored: StoredDigest, stream: Stream) -> int | None:
    """Return the number of ticks that a peer lacks of the changes it gets, or ``None`` if its digest is not known."""
    known = known_digest(stream)
    if known is None:
        return None
    theirs, left_out = stream.peer.endpoint(kind.name), stream.left_out_endpoints()
    return sum(
        missing.end - max(missing.start, 1)
        for missing in missing_ranges(stored.value, known)
        if fold(missing.endpoint) not in left_out
        and (
            same_endpoint(missing.endpoint, kind.endpoint)
            or (stream.peer.relay and not same_endpoint(missing.endpoint, theirs))
        )
    )
