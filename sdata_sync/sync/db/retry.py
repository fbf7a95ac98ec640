"""Repeat transactions that the database has rolled back: deadlocks, serialization failures, lock timeouts.

With several writers a database may choose any transaction as the victim, and that transaction is repeated from its
beginning. A transaction that the caller has begun is not repeated here: the database rolls it back as a whole, so only
the code that began it can repeat it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import stamina
from django.db import OperationalError, connections

from ...turns import write_transaction

T = TypeVar("T")

#: PostgreSQL: serialization failure, deadlock, lock not available.
_SQLSTATES = frozenset(["40001", "40P01", "55P03"])
#: MySQL and MariaDB: lock wait timeout, deadlock, record changed since it was read.
_ERRNOS = frozenset([1205, 1213, 1020])

ATTEMPTS = 8


def is_transient(error: Exception) -> bool:
    """Return True if a transaction that failed with ``error`` will probably succeed when it is repeated."""
    if not isinstance(error, OperationalError):
        return False
    cause: Any = error.__cause__
    if getattr(cause, "sqlstate", None) in _SQLSTATES:
        return True
    number = error.args[0] if error.args else None
    return number in _ERRNOS or "database is locked" in str(error)


def atomically(using: str, act: Callable[[], T]) -> T:
    """Call ``act`` in a transaction, and repeat the whole transaction if the database rolls it back.

    Return the result of ``act``, as ``repeated`` does.

    Raises:
        OperationalError: the last attempt failed too, or the error is not transient.
    """

    def attempt() -> T:
        with write_transaction(using):
            return act()

    return repeated(using, attempt)


def repeated(using: str, act: Callable[[], T]) -> T:
    """Call ``act``, and call it again after a deadlock, serialization failure or lock timeout.

    It is called again at most ``ATTEMPTS`` times, and never if a transaction is open already. Return its result.

    Raises:
        OperationalError: the last attempt failed too, or the error is not transient.
    """
    if connections[using].in_atomic_block:
        return act()
    try:
        return act()
    except OperationalError as error:
        if not is_transient(error):
            raise
    for attempt in stamina.retry_context(on=is_transient, attempts=ATTEMPTS, wait_initial=0.02, wait_max=0.5):
        with attempt:
            return act()
    raise AssertionError("The last attempt returns or raises.")
