"""The notifier: passes wake-ups on to other processes from a thread, so that no writer waits for that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from .loop import Loop

logger = logging.getLogger(__name__)

#: The pauses after a failure, in seconds: the first and the longest.
PAUSES = (0.2, 30.0)
#: The time after the last notification for which connections stay open.
IDLE_SECONDS = 5.0


class Notifier(Loop):
    """Collects notifications while it sends, and sends the collected ones together.

    ``send_kinds`` is called with the changed kinds, each with True for a change of this node and False for a received
    change. ``send_operation`` is called with the primary key of an operation to carry out. What cannot be sent is sent
    later. If the process ends before, that costs time only: the delivering process polls, and the peer that waits for
    an operation polls too.
    """

    def __init__(self, send_kinds: Callable[[dict[str, bool]], None], send_operation: Callable[[int], None]) -> None:
        super().__init__("sdata-sync-notifier")
        self._send_kinds, self._send_operation = send_kinds, send_operation
        #: Held while notifications are added or taken, so that none is lost between the two.
        self._lock = threading.Lock()
        self._kinds: dict[str, bool] = {}
        self._operations: set[int] = set()
        self._failures = 0

    def notify(self, kind: str, is_own: bool) -> None:
        """Make the thread send a notification that a change of ``kind`` was committed; return at once."""
        self._collect({kind: is_own}, set())
        self.wake()

    def request_operation(self, operation: int) -> None:
        """Make the thread request that another process carries out ``operation``; return at once."""
        self._collect({}, {operation})
        self.wake()

    def _collect(self, kinds: dict[str, bool], operations: set[int]) -> None:
        with self._lock:
            for kind, is_own in kinds.items():
                self._kinds[kind] = is_own or self._kinds.get(kind, False)
            self._operations |= operations

    def act(self, *, woken: bool) -> float:
        """Send the collected notifications."""
        with self._lock:
            kinds, self._kinds = self._kinds, {}
            operations, self._operations = self._operations, set()
        try:
            if kinds:
                self._send_kinds(kinds)
            while operations:
                self._send_operation(next(iter(operations)))
                operations.pop()
        except Exception as error:  # each broker has exceptions of its own
            return self._send_later(kinds, operations, error)
        if self._failures:
            logger.warning("Notifications of changes can be sent again")
            self._failures = 0
        if not woken:
            connections.close_all()
        return IDLE_SECONDS

    def _send_later(self, kinds: dict[str, bool], operations: set[int], error: Exception) -> float:
        self._collect(kinds, operations)
        if not self._failures:
            logger.warning("Notifications of changes cannot be sent; they are sent later: %r", error)
        self._failures += 1
        connections.close_all()
        return min(PAUSES[0] * 2.0 ** min(self._failures - 1, 20), PAUSES[1])
