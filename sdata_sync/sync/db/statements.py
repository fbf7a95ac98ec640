"""Split values into chunks that fit into one statement, and lock rows where the database can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from django.db import connections, models

M = TypeVar("M", bound=models.Model)
T = TypeVar("T")

#: The maximum number of values in one statement.
CHUNK = 5000


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield ``values`` in lists of at most ``size``, by default as many as fit into one statement."""
    every = list(values)
    for start in range(0, len(every), size):
        yield every[start : start + size]


def locks_rows(using: str) -> bool:
    """Return True if the database ``using`` can lock single rows; SQLite locks the whole database instead."""
    return bool(connections[using].features.has_select_for_update)


def locked(rows: models.QuerySet[M], using: str) -> models.QuerySet[M]:
    """Return ``rows`` as a queryset that locks them until the transaction ends, if the database can lock single rows.

    Rows of joined tables are not locked, if the database can lock the rows of one table only.
    """
    if not locks_rows(using):
        return rows
    return rows.select_for_update(of=("self",) if connections[using].features.has_select_for_update_of else ())
