"""Represent the sync state of a resource: the endpoint, tick, stamp and user of its last change."""

from dataclasses import dataclass

from .text import fold

#: The first tick that an endpoint assigns (SData sync 2.2).
FIRST_TICK = 1

#: The greatest tick. Ticks are signed 64-bit integers, and a digest must be able to hold the tick after this one.
MAX_TICK = 2**63 - 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncState:
    """Hold the endpoint, tick, stamp and user of a resource's last change at any node (SData sync 4.3).

    ``endpoint`` is a collection URL, compared ignoring case. ``tick`` is the value of that endpoint's logical clock at
    the change. ``stamp`` is the time of the change in whole milliseconds since 1970-01-01T00:00Z. ``user`` is the name
    of the user who made the change, or empty if it is not known.
    """

    endpoint: str
    tick: int
    stamp: int
    user: str = ""


def same_endpoint(one: str, other: str) -> bool:
    """Return True if two endpoint URLs are equal, ignoring case (``fold``)."""
    return one == other or fold(one) == fold(other)


def is_later(one: SyncState, other: SyncState) -> bool:
    """Return True if ``one`` comes after ``other`` in the total order that every node uses.

    The state with the later stamp is later. If the stamps are equal, the state with the smaller endpoint URL is later.
    SData sync 2.3 suggests the second rule; any rule works if every node uses the same one.
    """
    if one.stamp != other.stamp:
        return one.stamp > other.stamp
    return fold(one.endpoint) < fold(other.endpoint)


def stamp_after(now: int, *replaced: int) -> int:
    """Return the stamp of a change made at ``now`` that replaces versions stamped ``replaced`` (milliseconds).

    The result is later than every replaced stamp, even if the clock of this node is behind: a change made in knowledge
    of another version must not lose to that version's stamp at a third node.
    """
    return max(now, *(stamp + 1 for stamp in replaced)) if replaced else now
