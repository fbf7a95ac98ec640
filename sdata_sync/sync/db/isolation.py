"""Isolate the error of one row, at the source and at the target, so that it never blocks the other rows of its kind.

At the source ``read_apart`` finds the rows that cannot be read or encoded. At the target ``row_guard`` turns an
exception that one row causes into a ``PayloadError``, which defers that row's entry. Neither of them handles the
exceptions that end the whole page (``faults.ends_page``).

Some errors are detected only at the commit, or break the transaction because the row has no savepoint. Then
``atomically_by_row`` repeats the whole transaction in *careful* mode: every row is read and written in a savepoint of
its own, and deferred constraints are checked after each row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

from django.db import IntegrityError, connections, transaction

from ...exceptions import PayloadError, SyncError
from .faults import breaks_transaction, describe, ends_page
from .retry import atomically

logger = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")


@contextmanager
def override(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Set a ContextVar for the duration of a ``with`` block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class DeferredConstraints:
    """Check the constraints that the database would check only at the commit.

    On SQLite, violations that exist when the object is created are ignored.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._known = self._violations() if connections[using].vendor == "sqlite" else set()

    def check(self) -> None:
        """Check the constraints now.

        Raises:
            IntegrityError: a row violates a deferred constraint.
        """
        connection = connections[self._using]
        if connection.vendor == "mysql":
            return  # the database checks after each statement and has no deferred constraints
        if connection.vendor != "sqlite":
            connection.check_constraints()
            return
        new = self._violations() - self._known
        if new:
            table, key, target = min(new, key=str)
            raise IntegrityError(f"row {key} of the table {table} refers to a missing row of the table {target}")

    def _violations(self) -> set[tuple[Any, ...]]:
        with connections[self._using].cursor() as cursor:
            cursor.execute("PRAGMA foreign_key_check")
            return {(table, key, target) for table, key, target, _ in cursor.fetchall()}


_careful: ContextVar[DeferredConstraints | None] = ContextVar("sdata_sync_careful", default=None)


def is_careful() -> bool:
    """Return True in careful mode, in which each row is read and written in a savepoint of its own."""
    return _careful.get() is not None


def check_deferred_constraints() -> None:
    """In careful mode, check the constraints that the database would check only at the commit; else do nothing.

    Raises:
        PayloadError: a row violates a deferred constraint.
    """
    constraints = _careful.get()
    if constraints is not None:
        try:
            constraints.check()
        except IntegrityError as error:
            found = refusal(error)
            found.application_code = PayloadError.AT_COMMIT
            raise found from error


def atomically_by_row(using: str, act: Callable[[], T]) -> T:
    """Call ``act`` in a transaction; repeat it in careful mode if a row made the whole transaction fail.

    ``act`` may be called several times. Return the result of the last call.
    """
    try:
        return atomically(using, act)
    except SyncError:
        raise
    except Exception as error:
        if ends_page(error) and not breaks_transaction(error):
            raise
        logger.info("The transaction failed and is repeated row by row: %s", describe(error))

    def act_carefully() -> T:
        with override(_careful, DeferredConstraints(using)):
            return act()

    return atomically(using, act_carefully)


class row_guard:  # noqa: N801  a context manager, named like a function
    """Turn an exception that one row causes into a ``PayloadError``, and undo what the block has written.

    With ``savepoint=False`` the block must not write, because then only careful mode uses a savepoint.

    Raises:
        PayloadError: the row cannot be read, decoded or written.
    """

    # A class and not a generator function, which costs more: the guard is entered several times for each row.
    __slots__ = ("_atomic", "_using")

    def __init__(self, using: str, *, savepoint: bool = True) -> None:
        self._using = using
        self._atomic = transaction.atomic(using=using) if savepoint or is_careful() else None

    def __enter__(self) -> None:
        if self._atomic is not None:
            self._atomic.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._atomic is not None:
            try:
                self._atomic.__exit__(kind, error, trace)
            except Exception as raised:  # the savepoint could not be released
                if self._is_of_page(raised):
                    raise
                raise refusal(raised) from raised
        if isinstance(error, Exception) and not isinstance(error, PayloadError) and not self._is_of_page(error):
            raise refusal(error) from error

    def _is_of_page(self, error: Exception) -> bool:
        return ends_page(error) or connections[self._using].needs_rollback


def refusal(error: Exception) -> PayloadError:
    """Return the ``PayloadError`` that defers an entry because of ``error``; the sender learns only its class."""
    return PayloadError(describe(error), public=f"The application refused it ({type(error).__name__}).")


def read_apart(
    using: str, items: Sequence[K], read: Callable[[Sequence[K]], Mapping[str, T]]
) -> tuple[dict[str, T], dict[K, str]]:
    """Call ``read`` for ``items``; return its results, and by item the description of the error that the item raises.

    All items are read together. If that raises, each half is read, and so on until each failing item is read alone.
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
            if ends_page(error) or connections[using].needs_rollback:
                raise
            if len(group) == 1:
                problems[group[0]] = describe(error)
            else:
                middle = len(group) // 2
                groups += [group[middle:], group[:middle]]
        is_first = False
    return found, problems
