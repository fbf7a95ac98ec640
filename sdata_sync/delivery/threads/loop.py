"""A loop: a thread that acts when it is woken, and after a pause."""

from __future__ import annotations

import logging
import threading

from django.db import connections

logger = logging.getLogger(__name__)

#: The pause after an unexpected exception, for instance while the database cannot be reached.
FAILURE_SECONDS = 1.0


class Loop(threading.Thread):
    """A daemon thread that acts when it is woken and after each pause, until it is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._event = threading.Event()
        self._event.set()  # the first action needs no wake-up
        self._acting = False
        self._may_run = threading.Event()
        self._may_run.set()
        self._is_halted = threading.Event()
        self.is_stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether the loop acts or is about to act."""
        # The event is read first: ``run`` sets ``_acting`` before it clears the event.
        return self.is_alive() and (self._event.is_set() or self._acting)

    def wake(self) -> None:
        """Make the loop act soon."""
        if not self._event.is_set():
            self._event.set()

    def halt(self) -> None:
        """Make the loop close its connections and halt after its present action."""
        self._may_run.clear()
        self._event.set()

    def wait_halted(self, seconds: float) -> None:
        """Wait until the loop has halted, for at most ``seconds``; log a warning on a timeout."""
        if self.is_alive() and not self._is_halted.wait(max(seconds, 0)):
            logger.warning("%s has not halted yet; the process forks all the same", self.name)

    def release(self) -> None:
        """End the halt."""
        self._may_run.set()

    def _stand_still(self) -> None:
        connections.close_all()
        self._is_halted.set()
        self._may_run.wait()
        self._is_halted.clear()

    def stop(self) -> None:
        """Stop the loop after its present action."""
        self.is_stopped = True
        self._event.set()

    def run(self) -> None:
        """Act until stopped; log an exception and continue."""
        pause = 0.0
        try:
            while not self.is_stopped:
                woken = self._event.wait(pause)
                if not self._may_run.is_set():
                    self._stand_still()
                self._acting = True
                self._event.clear()
                if self.is_stopped:
                    break
                try:
                    pause = self.act(woken=woken)
                except Exception:
                    logger.exception("%s failed unexpectedly; it continues after a pause", self.name)
                    pause = FAILURE_SECONDS
                    connections.close_all()
                self._acting = False
        finally:
            self._acting = False
            connections.close_all()

    def act(self, *, woken: bool) -> float:
        """Do the work once; return the pause before the next time, in seconds. ``woken`` is False after a pause."""
        raise NotImplementedError
