"""Helpers for statements that the ORM builds anew: how many values fit into one, and locks where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from django.db import connections, models

M = TypeVar("M", bound=models.Model)
T = TypeVar("T")

#: Values in one statement.
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
    """Return ``rows``, locked until the transaction ends where the database can lock single rows.

    Rows of joined tables stay unlocked where the database can tell them apart.
    """
    if not locks_rows(using):
        return rows
    return rows.select_for_update(of=("self",) if connections[using].features.has_select_for_update_of else ())
