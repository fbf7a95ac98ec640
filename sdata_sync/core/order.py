"""Check the order of ticks in a feed, and that an immediate feed begins at the target's ticks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from .text import fold

if TYPE_CHECKING:
    from .digest import Digest
    from .state import SyncState


class TickFault(StrEnum):
    """Name the faults of a tick; the values are the application codes of the diagnosis."""

    GAP = "TickGap"
    ORDER = "TickOrder"


@dataclass(frozen=True, kw_only=True, slots=True)
class TickError:
    """Describe the tick for which a feed is refused: ``endpoint`` sent ``received`` instead of ``expected``."""

    fault: TickFault
    endpoint: str
    expected: int
    received: int

    def __str__(self) -> str:
        if self.fault is TickFault.GAP:
            return (
                f"The ticks are not contiguous: expected tick {self.expected} of {self.endpoint}, "
                f"received {self.received}."
            )
        return (
            f"The ticks of an endpoint must ascend: expected tick {self.expected} or more of {self.endpoint}, "
            f"received {self.received}."
        )


class TickOrder:
    """Check the ticks of the entries of one feed, in the order of the feed.

    In every feed the ticks of an endpoint ascend (SData sync 4.4). In an immediate feed, the ticks of an endpoint that
    the target does not contain yet must also begin exactly at the target's tick and go up by one (SData sync 5.8).
    """

    def __init__(self, target: Digest, *, contiguous: bool) -> None:
        self._target = target
        self._contiguous = contiguous
        self._next: dict[str, int] = {}

    def check(self, state: SyncState) -> TickError | None:
        """Return the fault of the next entry's tick, or ``None`` if there is none."""
        key = fold(state.endpoint)
        previous = self._next.get(key)
        if previous is not None and state.tick < previous:
            return TickError(fault=TickFault.ORDER, endpoint=state.endpoint, expected=previous, received=state.tick)
        self._next[key] = state.tick + 1
        if self._contiguous:
            due = max(self._target.tick(state.endpoint), previous or 0)
            # Not "!=": a lower tick is contained already, or is the 0 at which some endpoints begin to count.
            if state.tick > due:
                return TickError(fault=TickFault.GAP, endpoint=state.endpoint, expected=due, received=state.tick)
        return None
