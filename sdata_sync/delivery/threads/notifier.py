"""The messenger: passes wake-ups on to another process, from a thread, so that no writer waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from .loop import Loop

logger = logging.getLogger(__name__)

#: The pauses after a failure: the first, and the longest.
PAUSES = (0.2, 30.0)
#: So long after the last message connections are kept.
IDLE_SECONDS = 5.0


class Notifier(Loop):
    """Collects what is to be said while it is saying something, and says that in one go.

    ``send_signals`` tells others that kinds were changed, by kind whether the change is our own; ``order`` has an
    operation carried out. What cannot be said is said later; should the process end first, that costs time: who
    delivers looks by itself, and whoever waits for an operation asks again.
    """

    def __init__(self, send_kinds: Callable[[dict[str, bool]], None], send_operation: Callable[[int], None]) -> None:
        super().__init__("sdata-sync-messenger")
        self._send_kinds, self._send_operation = send_kinds, send_operation
        #: Held for a moment: what is said while the words are taken must not be among those taken already.
        self._lock = threading.Lock()
        self._kinds: dict[str, bool] = {}
        self._operations: set[int] = set()
        self._failures = 0

    def notify(self, kind: str, is_own: bool) -> None:
        """Have it said that something of ``kind`` was committed."""
        self._collect({kind: is_own}, set())
        self.wake()

    def request_operation(self, operation: int) -> None:
        """Have an operation carried out."""
        self._collect({}, {operation})
        self.wake()

    def _collect(self, kinds: dict[str, bool], operations: set[int]) -> None:
        with self._lock:
            for kind, is_own in kinds.items():
                self._kinds[kind] = is_own or self._kinds.get(kind, False)
            self._operations |= operations

    def act(self, *, woken: bool) -> float:
        """Say what there is to say."""
        with self._lock:
            kinds, self._kinds = self._kinds, {}
            operations, self._operations = self._operations, set()
        try:
            if kinds:
                self._send_kinds(kinds)
            while operations:
                self._send_operation(next(iter(operations)))
                operations.pop()
        except Exception as error:  # whatever the other side raises: a broker has errors of its own
            return self._send_later(kinds, operations, error)
        if self._failures:
            logger.warning("What waits to be delivered can be announced again")
            self._failures = 0
        if not woken:
            connections.close_all()
        return IDLE_SECONDS

    def _send_later(self, kinds: dict[str, bool], operations: set[int], error: Exception) -> float:
        self._collect(kinds, operations)
        if not self._failures:
            logger.warning("What waits to be delivered cannot be announced; it is tried again: %r", error)
        self._failures += 1
        connections.close_all()
        return min(PAUSES[0] * 2.0 ** min(self._failures - 1, 20), PAUSES[1])
