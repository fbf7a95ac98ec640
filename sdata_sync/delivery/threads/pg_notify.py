"""The bell: PostgreSQL's NOTIFY and LISTEN, by which a worker learns at once that there is something to do.

Elsewhere there is none, and behind a pooler that shares connections between transactions none is heard; who listens
looks by itself now and then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from django.db import connections

from ..lease import database
from .loop import Loop

logger = logging.getLogger(__name__)

CHANNEL = "sdata_sync"
#: How long it listens before it looks whether it is to end.
LISTENING_SECONDS = 1.0


def can_notify() -> bool:
    """Tell whether the database has one, and its driver can listen."""
    if connections[database()].vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def notify(kinds: Iterable[str]) -> None:
    """Notify the listening processes that changes of ``kinds`` were committed.

    Not in a writer's transaction: PostgreSQL has all that notify commit one after the other.
    """
    with connections[database()].cursor() as cursor:
        for kind in kinds:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, kind])


class Listener(Loop):
    """Calls ``on_notify`` whenever the bell is rung."""

    def __init__(self, on_notify: Callable[[], None]) -> None:
        super().__init__("sdata-sync-listener")
        self._on_notify = on_notify
        self._raw: Any = None

    def act(self, *, woken: bool) -> float:
        """Listen for a while."""
        connection = connections[database()]
        connection.ensure_connection()
        raw: Any = connection.connection
        if raw is not self._raw:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._raw = raw
            self._on_notify()  # for what was said before
        for _ in raw.notifies(timeout=LISTENING_SECONDS, stop_after=1):
            self._on_notify()
        return 0.0
