"""A loop: a thread that acts when it is woken, and now and then."""

from __future__ import annotations

import logging
import threading

from django.db import connections

logger = logging.getLogger(__name__)

#: The pause after something unexpected, such as a database that is away.
FAILURE_SECONDS = 1.0


class Loop(threading.Thread):
    """A daemon thread that acts when it is woken and after each pause, until it is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._event = threading.Event()
        self._event.set()  # there is something to do from the beginning
        self._acting = False
        self._may_run = threading.Event()
        self._may_run.set()
        self._is_halted = threading.Event()
        self.is_stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether it acts, or is about to."""
        # In this order: it begins to act before it takes the event back.
        return self.is_alive() and (self._event.is_set() or self._acting)

    def wake(self) -> None:
        """Have it act."""
        if not self._event.is_set():
            self._event.set()

    def halt(self) -> None:
        """Have it close its connections and stand still after what it is at."""
        self._may_run.clear()
        self._event.set()

    def wait_halted(self, seconds: float) -> None:
        """Wait until it stands still, but not for ever."""
        if self.is_alive() and not self._is_halted.wait(max(seconds, 0)):
            logger.warning("%s is still at it; the process forks all the same", self.name)

    def release(self) -> None:
        """Let it go on."""
        self._may_run.set()

    def _stand_still(self) -> None:
        connections.close_all()
        self._is_halted.set()
        self._may_run.wait()
        self._is_halted.clear()

    def stop(self) -> None:
        """End it after what it is at."""
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
                    logger.exception("%s failed unexpectedly; it goes on", self.name)
                    pause = FAILURE_SECONDS
                    connections.close_all()
                self._acting = False
        finally:
            self._acting = False
            connections.close_all()

    def act(self, *, woken: bool) -> float:
        """Do what is to be done and return when to act again, in seconds."""
        raise NotImplementedError
