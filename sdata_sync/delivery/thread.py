"""The default backend: a thread of the process for each peer. No broker, no worker.

The threads start when there is something to deliver, survive a fork by starting anew in the child, and are
daemons: a process that ends goes on delivering for ``DRAIN_SECONDS`` at most.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from functools import partial

from django.db import connections

from ..conf import conf
from ..models import Peer
from ..registry import registry
from ..sync.clock import now
from .base import DeliveryBackend
from .courier import Courier

logger = logging.getLogger(__name__)

#: How old the list of peers may be when something is to be delivered.
PEERS_SECONDS = 1.0
#: The pause after something unexpected, such as a database that is away.
FAILURE_SECONDS = 1.0
#: How long a fork waits for what the threads are at.
PARKING_SECONDS = 5.0


class ThreadDelivery(DeliveryBackend):
    """Delivers from threads of the process that writes."""

    def __init__(self, poll_seconds: float | None = None) -> None:
        self._poll_seconds = poll_seconds
        self._reset()
        itself = weakref.ref(self)

        def act(name: str) -> None:
            backend = itself()
            if backend is not None:
                getattr(backend, name)()

        os.register_at_fork(
            before=partial(act, "_park"), after_in_parent=partial(act, "_unpark"), after_in_child=partial(act, "_reset")
        )
        atexit.register(partial(act, "drain"))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        #: Held while the process forks, with the loops that stand still for it.
        self._forking = threading.Lock()
        self._parked: list[_Loop] = []
        self._threads: dict[int, PeerThread] = {}
        self._supervisor: Supervisor | None = None

    def _loops(self) -> list[_Loop]:
        return [*self._threads.values(), *([self._supervisor] if self._supervisor else [])]

    def _park(self) -> None:
        """Have no connection open while the process forks, and no thread running that could begin one.

        The child would inherit it, with SQLite's idea of which locks this process holds: "database is locked"
        at best.
        """
        self._forking.acquire()
        while True:
            running = [loop for loop in self._loops() if loop not in self._parked]
            for loop in running:
                if loop is not threading.current_thread():
                    loop.park(PARKING_SECONDS)
                self._parked.append(loop)
            # What ran until now may just have started another; from here on nobody can.
            self._lock.acquire()
            if all(loop in self._parked for loop in self._loops()):
                return
            self._lock.release()

    def _unpark(self) -> None:
        self._lock.release()
        for loop in self._parked:
            loop.unpark()
        self._parked.clear()
        self._forking.release()

    @property
    def poll_seconds(self) -> float:
        """How often to look without having been woken."""
        return conf.poll_seconds if self._poll_seconds is None else self._poll_seconds

    def wake(self, kind: str, is_own: bool) -> None:
        """Wake the threads of the peers that are concerned."""
        for thread in list(self._threads.values()):
            if is_own or thread.is_relay:
                thread.wake(kind)
        supervisor = self._supervisor
        if supervisor is None:
            self._start()
        elif supervisor.is_due:
            supervisor.wake()

    def serve(self) -> None:
        """Look once for what was left when the last process ended."""
        if self._supervisor is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._supervisor is None:
                self._supervisor = Supervisor(self)
                self._supervisor.start()

    def employ(self, peers: list[Peer]) -> None:
        """Have a thread for each of ``peers``, and for no other."""
        with self._lock:
            wanted = {peer.pk: peer for peer in peers}
            for pk in self._threads.keys() - wanted.keys():
                self._threads.pop(pk).stop()
            for pk, peer in wanted.items():
                thread = self._threads.get(pk)
                if thread is None or not thread.is_for(peer):
                    if thread is not None:
                        thread.stop()
                    self._threads[pk] = PeerThread(self, peer)
                    self._threads[pk].start()

    def drain(self, seconds: float | None = None) -> bool:
        """Wait until everything that can be delivered is delivered, or the time is up; return whether it is."""
        deadline = time.monotonic() + (conf.drain_seconds if seconds is None else seconds)
        while time.monotonic() < deadline:
            supervisor = self._supervisor
            if supervisor is None or not (supervisor.is_busy or any(t.is_busy for t in self._threads.values())):
                return True
            time.sleep(0.005)
        return False

    def stop(self) -> None:
        """End the threads after what they are at."""
        with self._lock:
            for thread in self._threads.values():
                thread.stop()
            if self._supervisor is not None:
                self._supervisor.stop()
            threads = self._loops()
        for running in threads:
            running.join(conf.drain_seconds)
        self._reset()


class _Loop(threading.Thread):
    """A daemon that acts when it is woken, and now and then."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._event = threading.Event()
        self._event.set()  # there is something to do from the beginning
        self._stopped = False
        self._acting = False
        self._may_run = threading.Event()
        self._may_run.set()
        self._is_parked = threading.Event()

    @property
    def is_busy(self) -> bool:
        """Whether it acts, or is about to."""
        # In this order: it begins to act before it takes the event back.
        return self.is_alive() and (self._event.is_set() or self._acting)

    def park(self, seconds: float) -> None:
        """Have it close its connections and stand still; wait for that, but not for ever."""
        self._may_run.clear()
        self._event.set()
        if self.is_alive() and not self._is_parked.wait(seconds):
            logger.warning("%s is still delivering; the process forks all the same", self.name)

    def unpark(self) -> None:
        """Let it go on."""
        self._may_run.set()

    def _stand_still(self) -> None:
        connections.close_all()
        self._is_parked.set()
        self._may_run.wait()
        self._is_parked.clear()

    def stop(self) -> None:
        """End it after what it is at."""
        self._stopped = True
        self._event.set()

    def run(self) -> None:
        """Act until stopped; whatever happens, go on."""
        pause = 0.0
        try:
            while not self._stopped:
                woken = self._event.wait(pause)
                if not self._may_run.is_set():
                    self._stand_still()
                self._acting = True
                self._event.clear()
                if self._stopped:
                    break
                try:
                    pause = self.act(woken=woken)
                except Exception:
                    logger.exception("The delivery failed unexpectedly; it goes on")
                    pause = FAILURE_SECONDS
                    connections.close_all()
                self._acting = False
        finally:
            self._acting = False
            connections.close_all()

    def act(self, *, woken: bool) -> float:
        """Do what is to be done and return when to act again, in seconds."""
        raise NotImplementedError


class Supervisor(_Loop):
    """Keeps the list of peers fresh."""

    def __init__(self, backend: ThreadDelivery) -> None:
        super().__init__("sdata-sync")
        self._backend = backend
        self._looked = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the list may be out of date."""
        return time.monotonic() - self._looked > PEERS_SECONDS

    def wake(self) -> None:
        """Have it look again."""
        self._event.set()

    def act(self, *, woken: bool) -> float:
        """Read the peers."""
        self._backend.employ(list(Peer.objects.filter(enabled=True, immediate=True)))
        self._looked = time.monotonic()
        if not woken:
            connections.close_all()
        return self._backend.poll_seconds


class PeerThread(_Loop):
    """Delivers to one peer."""

    def __init__(self, backend: ThreadDelivery, peer: Peer) -> None:
        super().__init__(f"sdata-sync-{peer.name}")
        self._backend = backend
        self._courier = Courier(peer)
        self._wanted: set[str] = set()
        self._owes = False
        self.is_relay = peer.relay

    def is_for(self, peer: Peer) -> bool:
        """Tell whether it delivers to ``peer`` as that is configured now."""
        ours = self._courier.peer
        return self.is_alive() and all(
            getattr(ours, name) == getattr(peer, name) for name in ("url", "credentials", "relay")
        )

    def wake(self, kind: str) -> None:
        """Have it deliver ``kind``."""
        self._wanted.add(kind)
        if not self._event.is_set():
            self._event.set()

    def act(self, *, woken: bool) -> float:
        """Deliver what was asked for; without having been asked, everything."""
        wanted, self._wanted = self._wanted, set()
        everything = self._owes or not wanted
        self._owes = True  # until it is known to have arrived
        if not woken:
            for resource in registry:
                self._courier.compare(resource)
        due = self._courier.deliver(r for r in registry if everything or r.kind in wanted)
        self._owes = due is not None
        if not woken:
            connections.close_all()
        if self._stopped:
            self._courier.close()
        poll = self._backend.poll_seconds
        return poll if due is None else min(max((due - now()) / 1000, 0.01), poll)
