"""Represent the digest of a collection: per endpoint, the changes that a node has taken into account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from .state import FIRST_TICK, SyncState, same_endpoint
from .text import fold

#: The conflict priority of an endpoint that a digest does not name: the weakest one.
DEFAULT_PRIORITY = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class DigestEntry:
    """State that every change of ``endpoint`` with a tick below ``tick`` is taken into account (SData sync 4.2).

    ``stamp`` is the time when the tick last moved, in milliseconds since 1970, or ``None`` if the peer did not send it.
    ``conflict_priority`` is 1 to 9 in the specification; the lower number wins a conflict.
    """

    endpoint: str
    tick: int
    stamp: int | None = None
    conflict_priority: int = DEFAULT_PRIORITY


class Digest:
    """Hold an immutable version vector: one ``DigestEntry`` per known endpoint.

    ``origin`` is the endpoint whose digest this is, or empty if it is not known. Endpoints are looked up ignoring case.
    If two entries have the same endpoint, the entry with the higher tick is used. ``part_of`` is the endpoint that
    filters the collection for this origin, which then has a partial replica: a change that this digest contains may be
    absent there. ``waiting`` is the number of received entries that the origin has deferred, ``None`` if it has not
    told it; a digest that is computed from another one has ``None``. ``delivered`` is set in a digest that is shown to
    a node whose changes other nodes have relayed to the origin, or only claimed: the tick up to which that node has
    delivered its changes itself.
    """

    __slots__ = ("_entries", "delivered", "origin", "part_of", "waiting")

    def __init__(
        self,
        entries: Iterable[DigestEntry] = (),
        *,
        origin: str = "",
        part_of: str = "",
        waiting: int | None = None,
        delivered: int | None = None,
    ) -> None:
        self.delivered = delivered
        self.origin = origin
        self.part_of = part_of
        self.waiting = waiting
        self._entries: dict[str, DigestEntry] = {}
        for entry in entries:
            key = fold(entry.endpoint)
            known = self._entries.get(key)
            if known is None or entry.tick > known.tick:
                self._entries[key] = entry

    def __iter__(self) -> Iterator[DigestEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        ticks = ", ".join(f"{entry.endpoint} {entry.tick}" for entry in self)
        return f"<Digest {ticks or 'empty'}>"

    def entry(self, endpoint: str) -> DigestEntry | None:
        """Return the entry of ``endpoint``, or ``None`` if there is none."""
        return self._entries.get(fold(endpoint))

    def tick(self, endpoint: str) -> int:
        """Return the first tick of ``endpoint`` that this digest does not contain."""
        entry = self._entries.get(fold(endpoint))
        return FIRST_TICK if entry is None else entry.tick

    def conflict_priority(self, endpoint: str) -> int:
        """Return the conflict priority of ``endpoint``; the lower number wins (SData sync 2.3)."""
        entry = self._entries.get(fold(endpoint))
        return DEFAULT_PRIORITY if entry is None else entry.conflict_priority

    def contains(self, state: SyncState) -> bool:
        """Return True if this digest contains the change that ``state`` names (SData sync 5.4).

        The comparison is strictly greater: a tick is the first value not yet assigned, so an entry at 6 contains tick 5
        and not tick 6. If this digest does not name the endpoint, it contains none of its changes, not even tick 0.
        """
        entry = self._entries.get(fold(state.endpoint))
        return entry is not None and entry.tick > state.tick

    def in_sync_with(self, other: Digest) -> bool:
        """Return True if both digests contain the same changes; stamps and priorities are not compared."""
        return self.covers(other) and other.covers(self)

    def covers(self, other: Digest) -> bool:
        """Return True if this digest contains every change that ``other`` contains."""
        return all(self.tick(entry.endpoint) >= entry.tick for entry in other)

    def advance(self, state: SyncState, *, stamp: int) -> Digest:
        """Return the digest after an entry with ``state`` was processed (SData sync 5.5, first table).

        A tick is never lowered. ``stamp`` is the present time in milliseconds since 1970.
        """
        return self.raised(state.endpoint, state.tick + 1, stamp=stamp)

    def raised(self, endpoint: str, tick: int, *, stamp: int) -> Digest:
        """Return this digest with the tick of ``endpoint`` raised to ``tick``; a higher tick stays unchanged.

        ``stamp`` is the present time in milliseconds since 1970.
        """
        known = self.entry(endpoint)
        if known is not None and known.tick >= tick:
            return self
        return self.raised_all({endpoint: tick}, stamp=stamp)

    def raised_all(self, ticks: Mapping[str, int], *, stamp: int) -> Digest:
        """Return this digest with the tick of each endpoint of ``ticks`` raised; higher ticks stay unchanged.

        ``stamp`` is the present time in milliseconds since 1970.
        """
        return self._with_all(
            DigestEntry(endpoint=endpoint, tick=tick, stamp=stamp)
            if (known := self.entry(endpoint)) is None
            else replace(known, tick=tick, stamp=stamp)
            for endpoint, tick in ticks.items()
            if self.entry(endpoint) is None or tick > self.tick(endpoint)
        )

    def merge(self, source: Digest, *, stamp: int) -> Digest:
        """Return the digest at the end of a catch-up feed: the maximum per endpoint (SData sync 5.5, second table).

        Call it only after the last page of a feed that was selected against this digest: the result contains every
        change that ``source`` contains. ``stamp`` is the present time in milliseconds since 1970.
        """
        higher = (
            replace(entry, tick=theirs.tick, stamp=stamp)
            if (entry := self.entry(theirs.endpoint)) is not None
            else DigestEntry(endpoint=theirs.endpoint, tick=theirs.tick, stamp=stamp)
            for theirs in source
            if theirs.tick > self.tick(theirs.endpoint) or self.entry(theirs.endpoint) is None
        )
        return self._with_all(higher)

    def with_priorities(self, source: Digest) -> Digest:
        """Return this digest with the conflict priorities of ``source`` where ``source`` is more up to date.

        Priorities may change while a system runs (SData sync 2.3). ``source`` is authoritative for the priority of its
        own origin. For another endpoint, ``source`` is taken if its tick is at least the tick in this digest. The
        priority of this digest's own origin never changes. Endpoints that this digest does not name are not added,
        because naming an endpoint claims ticks.
        """
        return self._with_all(
            replace(known, conflict_priority=theirs.conflict_priority)
            for theirs in source
            if (known := self.entry(theirs.endpoint)) is not None
            and known.conflict_priority != theirs.conflict_priority
            and not same_endpoint(theirs.endpoint, self.origin)
            and (theirs.tick >= known.tick or same_endpoint(theirs.endpoint, source.origin))
        )

    def shown_to(self, endpoint: str, *, delivered: int) -> Digest:
        """Return this digest as it is shown to ``endpoint``, which has delivered its changes up to that tick."""
        entry = self.entry(endpoint)
        if entry is None or delivered >= entry.tick:
            return self
        return self._copy(waiting=self.waiting, delivered=delivered)

    def as_delivered_by(self, endpoint: str) -> Digest:
        """Return this digest, which is shown to ``endpoint``, with the tick up to which that has delivered its changes.

        The changes that the origin lacks are selected against the result.
        """
        entry = self.entry(endpoint)
        if entry is None or self.delivered is None:
            return self
        return self.with_entry(replace(entry, tick=min(self.delivered, entry.tick)))

    def with_origin(self, origin: str) -> Digest:
        """Return this digest as the digest of the endpoint ``origin``."""
        return self._copy(origin=origin)

    def as_part_of(self, endpoint: str) -> Digest:
        """Return this digest with ``endpoint`` as ``part_of``, for a feed that has only a part of the changes."""
        return self._copy(part_of=endpoint)

    def with_waiting(self, count: int) -> Digest:
        """Return this digest with ``count`` as the number of entries that wait at its origin."""
        return self._copy(waiting=count, delivered=self.delivered)

    def of_origin_alone(self) -> Digest:
        """Return this digest reduced to the entry of its origin: all that a partial replica can vouch for."""
        own = self.entry(self.origin)
        return Digest([] if own is None else [own], origin=self.origin, part_of=self.part_of)

    def with_entry(self, entry: DigestEntry) -> Digest:
        """Return this digest with ``entry`` in place of the present entry of the same endpoint."""
        return self._with_all([entry])

    def without(self, endpoints: Iterable[str]) -> Digest:
        """Return this digest without the entries of ``endpoints``."""
        left_out = {fold(endpoint) for endpoint in endpoints}
        return self._copy({key: entry for key, entry in self._entries.items() if key not in left_out})

    def _with_all(self, entries: Iterable[DigestEntry]) -> Digest:
        return self._copy({**self._entries, **{fold(entry.endpoint): entry for entry in entries}})

    def _copy(
        self,
        entries: dict[str, DigestEntry] | None = None,
        *,
        origin: str | None = None,
        part_of: str | None = None,
        waiting: int | None = None,
        delivered: int | None = None,
    ) -> Digest:
        """Return a digest with other parts; without ``waiting`` and ``delivered``, which hold for one answer only."""
        changed = Digest(
            origin=self.origin if origin is None else origin,
            part_of=self.part_of if part_of is None else part_of,
            waiting=waiting,
            delivered=delivered,
        )
        changed._entries = self._entries if entries is None else entries
        return changed
