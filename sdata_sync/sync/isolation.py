"""One bad row never blocks a kind: the guard around each row, at the source and at the target.

At the source ``read_apart`` finds the rows that cannot be read or encoded. At the target ``row_guard`` turns whatever
one row causes into a ``PayloadError``, which defers that row's entry. Both let pass what ends the whole page
(``faults.ends_page``).

Some faults are only found when the transaction ends, or break it without a savepoint around the row. Then
``atomically_by_row`` repeats the whole transaction in *careful* mode: every row is read and written in a savepoint of
its own, and deferred constraints are checked after each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import IntegrityError, connections, transaction

from ..context import holding
from ..exceptions import PayloadError, SyncError
from .faults import breaks_transaction, describe, ends_page
from .retrying import atomically

logger = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")


class DeferredConstraints:
    """Checks what the database would otherwise check when the transaction ends; violations from before do not count."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._known = self._violations() if connections[using].vendor == "sqlite" else set()

    def check(self) -> None:
        """Check now.

        Raises:
            IntegrityError: a row violates a deferred constraint.
        """
        connection = connections[self._using]
        if connection.vendor != "sqlite":
            connection.check_constraints()
            return
        new = self._violations() - self._known
        if new:
            table, key, target = min(new, key=str)
            raise IntegrityError(f"row {key} of the table {table} would refer to no row of the table {target}")

    def _violations(self) -> set[tuple[Any, ...]]:
        with connections[self._using].cursor() as cursor:
            cursor.execute("PRAGMA foreign_key_check")
            return {(table, key, target) for table, key, target, _ in cursor.fetchall()}


_careful: ContextVar[DeferredConstraints | None] = ContextVar("sdata_sync_careful", default=None)


def is_careful() -> bool:
    """Return True while each row is to be read and written in a savepoint of its own."""
    return _careful.get() is not None


def check_deferred_constraints() -> None:
    """In careful mode, check what the database would check when the transaction ends; else do nothing.

    Raises:
        IntegrityError: a row violates a deferred constraint.
    """
    constraints = _careful.get()
    if constraints is not None:
        constraints.check()


def atomically_by_row(using: str, act: Callable[[], T]) -> T:
    """Call ``act`` in a transaction; repeat it in careful mode if a row made the whole transaction fail."""
    try:
        return atomically(using, act)
    except SyncError:
        raise
    except Exception as error:
        if ends_page(error) and not breaks_transaction(error):
            raise
        logger.info("The transaction failed and is repeated row by row: %s", describe(error))

    def act_carefully() -> T:
        with holding(_careful, DeferredConstraints(using)):
            return act()

    return atomically(using, act_carefully)


@contextmanager
def row_guard(using: str, *, savepoint: bool = True) -> Iterator[None]:
    """Turn whatever one row causes inside the block into a ``PayloadError``, and undo what the block has written.

    Without a ``savepoint`` the block must not write.

    Raises:
        PayloadError: the row cannot be read, decoded or written.
    """
    try:
        with transaction.atomic(using=using) if savepoint or is_careful() else nullcontext():
            yield
    except PayloadError:
        raise
    except Exception as error:
        if ends_page(error) or connections[using].needs_rollback:
            raise
        raise refusal(error) from error


def refusal(error: Exception) -> PayloadError:
    """Return what defers an entry because of ``error``; the sender learns the class only."""
    return PayloadError(describe(error), public=f"The application refused it ({type(error).__name__}).")


def read_apart(
    using: str, items: Sequence[K], read: Callable[[Sequence[K]], Mapping[str, T]]
) -> tuple[dict[str, T], dict[K, str]]:
    """Return what ``read`` returns for ``items``, and for each item that makes it fail the description of the error.

    All items are read together; if that fails, the two halves are, until each failing item stands alone.
    """
    found: dict[str, T] = {}
    problems: dict[K, str] = {}
    groups = [list(items)] if items else []
    is_first = True
    while groups:
        group = groups.pop()
        try:
            with nullcontext() if is_first and not is_careful() else transaction.atomic(using=using):
                found.update(read(group))
        except Exception as error:
            if ends_page(error):
                raise
            if len(group) == 1:
                problems[group[0]] = describe(error)
            else:
                middle = len(group) // 2
                groups += [group[middle:], group[:middle]]
        is_first = False
    return found, problems
