"""The digest of a collection: what a node has taken into account, per endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from .state import FIRST_TICK, SyncState, same_endpoint

#: What an endpoint that a digest does not name is taken to have: the weakest wish to win.
DEFAULT_PRIORITY = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class DigestEntry:
    """Everything that ``endpoint`` recorded with a tick below ``tick`` is taken into account (SData sync 4.2).

    ``stamp`` is when the tick last moved, in milliseconds since 1970, ``None`` if the other side did not say.
    ``conflict_priority`` is 1 to 9 by the book; the lower number wins a conflict.
    """

    endpoint: str
    tick: int
    stamp: int | None = None
    conflict_priority: int = DEFAULT_PRIORITY


class Digest:
    """An immutable version vector: one ``DigestEntry`` per known endpoint.

    ``origin`` is the endpoint whose digest this is, empty if it was not said. Endpoints are looked up
    whatever their case. Of two entries for one endpoint the higher tick counts. ``part_of`` is the endpoint that
    lets this one have only a part of the collection: then what is contained need not be there.
    """

    __slots__ = ("_entries", "origin", "part_of")

    def __init__(self, entries: Iterable[DigestEntry] = (), *, origin: str = "", part_of: str = "") -> None:
        self.origin = origin
        self.part_of = part_of
        self._entries: dict[str, DigestEntry] = {}
        for entry in entries:
            key = entry.endpoint.lower()
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
        """Return the entry that names ``endpoint``, or ``None``."""
        return self._entries.get(endpoint.lower())

    def tick(self, endpoint: str) -> int:
        """Return the first tick of ``endpoint`` that is not taken into account here."""
        entry = self._entries.get(endpoint.lower())
        return FIRST_TICK if entry is None else entry.tick

    def conflict_priority(self, endpoint: str) -> int:
        """Return the priority of ``endpoint`` in a conflict; the lower number wins (SData sync 2.3)."""
        entry = self._entries.get(endpoint.lower())
        return DEFAULT_PRIORITY if entry is None else entry.conflict_priority

    def contains(self, state: SyncState) -> bool:
        """Tell whether the change that ``state`` names is taken into account (SData sync 5.4).

        Strictly greater: a tick is the first value not yet assigned, so an entry at 6 contains tick 5, not 6.
        Of an endpoint that is not named nothing is contained, not even a tick of 0.
        """
        entry = self._entries.get(state.endpoint.lower())
        return entry is not None and entry.tick > state.tick

    def level_with(self, other: Digest) -> bool:
        """Tell whether both digests contain the same changes; stamps and priorities do not matter."""
        return self.covers(other) and other.covers(self)

    def covers(self, other: Digest) -> bool:
        """Tell whether every change that ``other`` contains is contained here too."""
        return all(self.tick(entry.endpoint) >= entry.tick for entry in other)

    def advance(self, state: SyncState, *, stamp: int) -> Digest:
        """Return the digest after an entry with ``state`` was processed (SData sync 5.5, first table).

        Never lowers a tick. ``stamp`` is the present time in milliseconds.
        """
        return self.raised(state.endpoint, state.tick + 1, stamp=stamp)

    def raised(self, endpoint: str, tick: int, *, stamp: int) -> Digest:
        """Return this digest with the tick of ``endpoint`` at ``tick`` or, if that is higher, where it was."""
        known = self.entry(endpoint)
        if known is not None and known.tick >= tick:
            return self
        return self.raised_all({endpoint: tick}, stamp=stamp)

    def raised_all(self, ticks: Mapping[str, int], *, stamp: int) -> Digest:
        """Do the same for each endpoint of ``ticks``."""
        return self._with_all(
            DigestEntry(endpoint=endpoint, tick=tick, stamp=stamp)
            if (known := self.entry(endpoint)) is None
            else replace(known, tick=tick, stamp=stamp)
            for endpoint, tick in ticks.items()
            if self.entry(endpoint) is None or tick > self.tick(endpoint)
        )

    def merge(self, source: Digest, *, stamp: int) -> Digest:
        """Return the digest at the end of a catch-up feed: the maximum per endpoint (SData sync 5.5, second table).

        Only right after the last page of a feed that was selected against this digest: it claims all that
        ``source`` claims.
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
        """Return this digest with the conflict priorities that ``source`` knows better.

        Priorities may change while a system runs (SData sync 2.3): that of the endpoint the digest comes from
        is its own word, any other is taken from whoever has seen at least as much of that endpoint. Of our own
        nobody knows better. Endpoints that are not named here stay so: to name one is to claim ticks.
        """
        return self._with_all(
            replace(known, conflict_priority=theirs.conflict_priority)
            for theirs in source
            if (known := self.entry(theirs.endpoint)) is not None
            and known.conflict_priority != theirs.conflict_priority
            and not same_endpoint(theirs.endpoint, self.origin)
            and (theirs.tick >= known.tick or same_endpoint(theirs.endpoint, source.origin))
        )

    def as_part_of(self, endpoint: str) -> Digest:
        """Return this digest for a feed that is only a part of what it contains."""
        changed = Digest(origin=self.origin, part_of=endpoint)
        changed._entries = self._entries
        return changed

    def of_origin_alone(self) -> Digest:
        """Return what this digest says of its own origin: all that a part can vouch for."""
        own = self.entry(self.origin)
        return Digest([] if own is None else [own], origin=self.origin, part_of=self.part_of)

    def with_entry(self, entry: DigestEntry) -> Digest:
        """Return this digest with ``entry`` in the place of whatever it says of that endpoint."""
        return self._with_all([entry])

    def without(self, endpoints: Iterable[str]) -> Digest:
        """Return this digest without what it says of ``endpoints``."""
        left_out = {endpoint.lower() for endpoint in endpoints}
        changed = Digest(origin=self.origin, part_of=self.part_of)
        changed._entries = {key: entry for key, entry in self._entries.items() if key not in left_out}
        return changed

    def _with_all(self, entries: Iterable[DigestEntry]) -> Digest:
        changed = Digest(origin=self.origin, part_of=self.part_of)
        changed._entries = {**self._entries, **{entry.endpoint.lower(): entry for entry in entries}}
        return changed
