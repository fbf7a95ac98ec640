"""Let the writers of one process take turns on a SQLite database.

SQLite has one lock for all writers. A writer that waits for it sleeps inside SQLite and holds the mutex of its
connection. If the thread that holds the lock then closes a cursor of that connection, as the garbage collector does, it
waits for the sleeper, which waits for it, until the sleeper's timeout ends with "database is locked". So the writers of
a process wait for each other on a lock of the process, before they begin. Other databases have locks for rows.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from django.db import connections, models, router, transaction

_Row = TypeVar("_Row", bound=models.Model)

#: By process, because a forked process must not inherit a lock that another thread held, and by file.
_locks: defaultdict[tuple[int, str], threading.RLock] = defaultdict(threading.RLock)


def write_turn(using: str) -> AbstractContextManager[Any]:
    """Return a context that waits until no other thread of this process writes to the SQLite database ``using``.

    Inside a transaction, and on another database, it does nothing.
    """
    connection = connections[using]
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return nullcontext()
    return _locks[os.getpid(), str(connection.settings_dict["NAME"])]


@contextmanager
def write_transaction(using: str) -> Iterator[None]:
    """Open a transaction on ``using`` for a thread that writes, when no other thread of the process writes."""
    with write_turn(using), transaction.atomic(using=using):
        yield


class TurnQuerySet(models.QuerySet[_Row]):
    """Write in this thread's turn."""

    def update(self, **values: Any) -> int:
        with write_turn(_alias(self)):
            return super().update(**values)

    def delete(self) -> tuple[int, dict[str, int]]:
        with write_turn(_alias(self)):
            return super().delete()

    def bulk_create(self, *arguments: Any, **options: Any) -> list[_Row]:
        with write_turn(_alias(self)):
            return super().bulk_create(*arguments, **options)

    def get_or_create(self, defaults: Any = None, **values: Any) -> tuple[_Row, bool]:
        with write_turn(_alias(self)):
            return super().get_or_create(defaults, **values)

    def update_or_create(self, defaults: Any = None, create_defaults: Any = None, **values: Any) -> tuple[_Row, bool]:
        with write_turn(_alias(self)):
            return super().update_or_create(defaults, create_defaults, **values)


def _alias(rows: Any) -> str:
    return str(rows._db or router.db_for_write(rows.model, **rows._hints))


class TurnModel(models.Model):
    """Be the base of this app's models: their rows are written in turns."""

    objects = models.Manager.from_queryset(TurnQuerySet)()

    class Meta:
        abstract = True

    def save(self, *arguments: Any, using: str | None = None, **options: Any) -> None:
        with write_turn(using or router.db_for_write(type(self), instance=self)):
            super().save(*arguments, using=using, **options)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        with write_turn(using or router.db_for_write(type(self), instance=self)):
            return super().delete(using=using, keep_parents=keep_parents)
