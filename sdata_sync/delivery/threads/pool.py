"""A pool: the loops of one backend in one process.

A loop starts when it is needed. While the process forks all loops are halted; the child has none and starts its own.
When the process ends the loops have some time to finish.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeVar

from ...conf import conf
from .loop import Loop

T = TypeVar("T", bound=Loop)

#: The longest time that a fork waits for the loops to halt.
PARKING_SECONDS = 5.0


class Pool:
    """Starts and stops loops, which have names."""

    def __init__(self) -> None:
        self._reset()
        itself = weakref.ref(self)

        def act(name: str) -> None:
            pool = itself()
            if pool is not None:
                getattr(pool, name)()

        os.register_at_fork(
            before=partial(act, "_park"), after_in_parent=partial(act, "_unpark"), after_in_child=partial(act, "_reset")
        )
        atexit.register(partial(act, "drain"))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        #: Held while the process forks; ``_parked`` are the loops that are halted meanwhile.
        self._forking = threading.Lock()
        self._parked: list[Loop] = []
        self._loops: dict[Hashable, Loop] = {}

    def find(self, name: Hashable) -> Loop | None:
        """Return the loop called ``name``, or ``None``."""
        return self._loops.get(name)

    def names(self) -> list[Hashable]:
        """Return the names of all loops."""
        return list(self._loops)

    def start(self, name: Hashable, make: Callable[[], T], fits: Callable[[T], bool] = Loop.is_alive) -> T:
        """Return the loop called ``name``; stop it and start a new one if it does not fit (``fits`` returns False)."""
        with self._lock:
            found = self._loops.get(name)
            if found is not None and fits(found):  # type: ignore[arg-type]  # one name, one kind of loop
                return found  # type: ignore[return-value]
            if found is not None:
                found.stop()
            self._loops[name] = made = make()
            made.start()
            return made

    def stop_loop(self, name: Hashable) -> None:
        """Stop the loop called ``name`` after its present action."""
        with self._lock:
            found = self._loops.pop(name, None)
            if found is not None:
                found.stop()

    def drain(self, seconds: float | None = None) -> bool:
        """Wait until no loop is busy, at most ``seconds`` (default ``DRAIN_SECONDS``); return False on a timeout."""
        deadline = _deadline(seconds)
        while any(loop.is_busy for loop in list(self._loops.values())):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def stop(self, seconds: float | None = None) -> None:
        """Stop all loops after their present actions; wait for at most ``seconds`` (default ``DRAIN_SECONDS``)."""
        with self._lock:
            loops = list(self._loops.values())
            for loop in loops:
                loop.stop()
        deadline = _deadline(seconds)
        for loop in loops:
            loop.join(max(deadline - time.monotonic(), 0))
        self._reset()

    def _park(self) -> None:
        """Halt all loops before a fork, so that no connection is open and no thread can open one.

        The child would inherit the connection together with the file locks that SQLite believes to hold, and would
        fail with "database is locked" or worse.
        """
        self._forking.acquire()
        while True:
            running = [loop for loop in list(self._loops.values()) if loop not in self._parked]
            self._parked += running
            others = [loop for loop in running if loop is not threading.current_thread()]
            for loop in others:
                loop.halt()
            deadline = time.monotonic() + PARKING_SECONDS
            for loop in others:
                loop.wait_halted(deadline - time.monotonic())
            # A loop may have started another loop before it halted. With the lock held no loop can be started.
            self._lock.acquire()
            if all(loop in self._parked for loop in self._loops.values()):
                return
            self._lock.release()

    def _unpark(self) -> None:
        self._lock.release()
        for loop in self._parked:
            loop.release()
        self._parked.clear()
        self._forking.release()


def _deadline(seconds: float | None) -> float:
    return time.monotonic() + (conf.drain_seconds if seconds is None else seconds)
