"""The state of one resource: where and when its last change was recorded."""

from dataclasses import dataclass

#: Ticks start here: the first value that an endpoint assigns (SData sync 2.2).
FIRST_TICK = 1

#: The greatest tick: signed 64-bit numbers, and a digest must be able to name the one after it.
MAX_TICK = 2**63 - 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncState:
    """The last change of a resource, wherever it was made (SData sync 4.3).

    ``endpoint`` is a collection URL, the same whatever its case; ``tick`` that endpoint's logical clock at
    the change; ``stamp`` the time of the change in whole milliseconds since 1970-01-01T00:00Z; ``user`` who
    made it, empty if not known.
    """

    endpoint: str
    tick: int
    stamp: int
    user: str = ""


def same_endpoint(one: str, other: str) -> bool:
    """Tell whether two endpoint URLs name one endpoint: they are compared whatever their case."""
    return one == other or one.lower() == other.lower()


def is_later(one: SyncState, other: SyncState) -> bool:
    """Tell whether ``one`` comes after ``other`` in the order that every node agrees on.

    The later stamp is the later state; of two equal stamps, that of the smaller endpoint URL (SData sync 2.3
    suggests it; all that matters is that the rule is everywhere the same).
    """
    if one.stamp != other.stamp:
        return one.stamp > other.stamp
    return one.endpoint.lower() < other.endpoint.lower()


def stamp_after(now: int, *replaced: int) -> int:
    """Return the stamp of a change made at ``now`` that replaces versions stamped ``replaced`` (milliseconds).

    Always later than what it replaces, also under a clock that is behind: an edit made in the knowledge of
    another version must not lose to that version's stamp somewhere else.
    """
    return max(now, *(stamp + 1 for stamp in replaced)) if replaced else now
