"""The clock, in whole milliseconds: the smallest unit that every client keeps."""

import time
from collections.abc import Callable

#: Returns the present time in nanoseconds since 1970-01-01T00:00Z; tests replace it.
read_ns: Callable[[], int] = time.time_ns


def now() -> int:
    """Return the present time in milliseconds since 1970-01-01T00:00Z."""
    return read_ns() // 1_000_000
