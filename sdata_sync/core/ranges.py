"""Select the changes that a target lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .text import fold

if TYPE_CHECKING:
    from .digest import Digest
    from .state import SyncState


@dataclass(frozen=True, kw_only=True, slots=True)
class TickRange:
    """Hold the range ``start <= tick < end`` of the changes of one endpoint."""

    endpoint: str
    start: int
    end: int

    def __contains__(self, state: SyncState) -> bool:
        return fold(state.endpoint) == fold(self.endpoint) and self.start <= state.tick < self.end


def missing_ranges(source: Digest, target: Digest) -> list[TickRange]:
    """Return the ranges of ticks that ``source`` contains and ``target`` lacks, by endpoint (SData sync 2.5).

    The source sends a resource if its state lies in one of the ranges. The upper bound is the tick in the source's
    digest: a change recorded after that digest was read belongs to the next feed.
    """
    ranges = (
        TickRange(endpoint=entry.endpoint, start=_start(target, entry.endpoint), end=entry.tick) for entry in source
    )
    return sorted((r for r in ranges if r.start < r.end), key=lambda r: fold(r.endpoint))


def _start(target: Digest, endpoint: str) -> int:
    # Some endpoints count from 0. A target whose digest does not name the endpoint lacks tick 0 too.
    entry = target.entry(endpoint)
    return 0 if entry is None else entry.tick


def select(states: Iterable[SyncState], source: Digest, target: Digest) -> Iterator[SyncState]:
    """Yield the states that ``target`` lacks, by endpoint and then by ascending tick (SData sync 2.5, 4.4)."""
    ranges = {fold(r.endpoint): r for r in missing_ranges(source, target)}
    lacking = (s for s in states if (r := ranges.get(fold(s.endpoint))) is not None and s in r)
    yield from sorted(lacking, key=lambda s: (fold(s.endpoint), s.tick))
