"""A crew: the loops of one backend in one process.

They start when they are wanted, stand still while the process forks, are forgotten in the child, which starts its
own, and get some time to finish when the process ends.
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

#: How long a fork waits for what the loops are at.
PARKING_SECONDS = 5.0


class Pool:
    """Loops by name."""

    def __init__(self) -> None:
        self._reset()
        itself = weakref.ref(self)

        def act(name: str) -> None:
            crew = itself()
            if crew is not None:
                getattr(crew, name)()

        os.register_at_fork(
            before=partial(act, "_park"), after_in_parent=partial(act, "_unpark"), after_in_child=partial(act, "_reset")
        )
        atexit.register(partial(act, "drain"))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        #: Held while the process forks, with the loops that stand still for it.
        self._forking = threading.Lock()
        self._parked: list[Loop] = []
        self._loops: dict[Hashable, Loop] = {}

    def find(self, name: Hashable) -> Loop | None:
        """Return the loop called ``name``, if there is one."""
        return self._loops.get(name)

    def names(self) -> list[Hashable]:
        """Return the names of all of them."""
        return list(self._loops)

    def start(self, name: Hashable, make: Callable[[], T], fits: Callable[[T], bool] = Loop.is_alive) -> T:
        """Return the loop called ``name``, a new one if there is none that ``fits``."""
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
        """End the loop called ``name`` after what it is at."""
        with self._lock:
            found = self._loops.pop(name, None)
            if found is not None:
                found.stop()

    def drain(self, seconds: float | None = None) -> bool:
        """Wait until none of them is busy, or the time is up; return whether none is."""
        deadline = _deadline(seconds)
        while any(loop.is_busy for loop in list(self._loops.values())):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def stop(self, seconds: float | None = None) -> None:
        """End them after what they are at, and wait for that, but not longer than ``seconds``."""
        with self._lock:
            loops = list(self._loops.values())
            for loop in loops:
                loop.stop()
        deadline = _deadline(seconds)
        for loop in loops:
            loop.join(max(deadline - time.monotonic(), 0))
        self._reset()

    def _park(self) -> None:
        """Have no connection open while the process forks, and no thread running that could begin one.

        The child would inherit it, with SQLite's idea of which locks this process holds: "database is locked"
        at best.
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
            # What ran until now may just have started another; from here on nobody can.
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
