"""Wake a worker with NOTIFY and LISTEN of PostgreSQL.

Other databases have no such statement, and behind a pooler that shares connections between transactions notifications
do not arrive. So a worker polls as well.
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
#: The longest time of one LISTEN, before the listener checks whether it has been stopped.
LISTENING_SECONDS = 1.0


def can_notify() -> bool:
    """Return True if the database is PostgreSQL and its driver can listen."""
    if connections[database()].vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def notify(kinds: Iterable[str]) -> None:
    """Notify the listening processes that changes of ``kinds`` were committed.

    Not called in a writer's transaction: PostgreSQL lets transactions that notify commit only one after the other.
    """
    with connections[database()].cursor() as cursor:
        for kind in kinds:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, kind])


class Listener(Loop):
    """Calls ``on_notify`` for each notification."""

    def __init__(self, on_notify: Callable[[], None]) -> None:
        super().__init__("sdata-sync-listener")
        self._on_notify = on_notify
        self._raw: Any = None

    def act(self, *, woken: bool) -> float:
        """Listen for at most ``LISTENING_SECONDS``."""
        connection = connections[database()]
        connection.ensure_connection()
        raw: Any = connection.connection
        if raw is not self._raw:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._raw = raw
            self._on_notify()  # for notifications from before the LISTEN
        for _ in raw.notifies(timeout=LISTENING_SECONDS, stop_after=1):
            self._on_notify()
        return 0.0
