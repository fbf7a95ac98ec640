"""The clock, in whole milliseconds: the smallest unit that every client keeps.

A clock may be set back. Then a stored time lies further ahead than a process has ever set it, and none waits for it.
"""

import time
from collections.abc import Callable

from django.db.models import Q

#: How far the clocks of the processes of one node may differ.
SKEW_MILLIS = 60_000

#: Returns the present time in nanoseconds since 1970-01-01T00:00Z; tests replace it.
read_ns: Callable[[], int] = time.time_ns


def now() -> int:
    """Return the present time in milliseconds since 1970-01-01T00:00Z."""
    return read_ns() // 1_000_000


def lies_ahead(moment: int, longest: int) -> bool:
    """Return True if ``moment`` is still to come; it was set at most ``longest`` milliseconds ahead.

    The result is False for a time further ahead, which was set before the clock was set back.
    """
    return now() < moment <= now() + longest + SKEW_MILLIS


def column_lies_ahead(name: str, longest: int) -> Q:
    """Return ``lies_ahead`` for the column ``name``, as a condition of a query."""
    return Q((f"{name}__gt", now()), (f"{name}__lte", now() + longest + SKEW_MILLIS))


def column_is_recent(name: str, age: int) -> Q:
    """Return a condition of a query: the time in the column ``name`` is at most ``age`` milliseconds ago.

    A time in the future is not recent: it was set before the clock was set back.
    """
    return Q((f"{name}__gt", now() - age), (f"{name}__lte", now() + SKEW_MILLIS))
