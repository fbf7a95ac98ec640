"""Doing again what the database has undone: deadlocks, serialization failures, locks that took too long.

With several writers a database may pick any transaction as the victim; whoever was picked begins anew. Inside somebody
else's transaction that is not ours to do: it is undone whole, and whoever began it must begin again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import stamina
from django.db import OperationalError, connections, transaction

T = TypeVar("T")

#: PostgreSQL: serialization failure, deadlock, lock not available.
_SQLSTATES = frozenset(["40001", "40P01", "55P03"])
#: MySQL and MariaDB: lock wait timeout, deadlock, record changed since it was read.
_ERRNOS = frozenset([1205, 1213, 1020])

ATTEMPTS = 8


def is_transient(error: Exception) -> bool:
    """Tell whether the same transaction may well succeed when it is done again."""
    if not isinstance(error, OperationalError):
        return False
    cause: Any = error.__cause__
    if getattr(cause, "sqlstate", None) in _SQLSTATES:
        return True
    number = error.args[0] if error.args else None
    return number in _ERRNOS or "database is locked" in str(error)


def atomically(using: str, act: Callable[[], T]) -> T:
    """Call ``act`` in a transaction, and again from its beginning if the database undoes it."""

    def attempt() -> T:
        with transaction.atomic(using=using):
            return act()

    return repeated(using, attempt)


def repeated(using: str, act: Callable[[], T]) -> T:
    """Call ``act``, and again after a deadlock or serialization failure, unless a transaction is open already."""
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
