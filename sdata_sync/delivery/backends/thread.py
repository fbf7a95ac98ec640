"""The default backend: a thread of the process for each peer. No broker, no worker.

The threads start when there is something to deliver, survive a fork by starting anew in the child, and are
daemons: a process that ends goes on delivering for ``DRAIN_SECONDS`` at most.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore

from django.db import connections

from ...conf import conf
from ...models import Peer, Stream
from ...registry import registry
from ...sync.db.clock import now
from ..session import PeerSession
from ..threads.loop import Loop
from ..threads.pool import Pool
from .base import DeliveryBackend

#: How old the list of peers may be when something is to be delivered.
PEERS_SECONDS = 1.0
_SUPERVISOR = "supervisor"


class ThreadDelivery(DeliveryBackend):
    """Delivers from threads of the process that writes."""

    def __init__(self, poll_seconds: float | None = None) -> None:
        self._poll_seconds = poll_seconds
        self._pool = Pool()
        self.slots = Slots(conf.max_deliveries)

    @property
    def poll_seconds(self) -> float:
        """How often to look without having been woken."""
        return conf.poll_seconds if self._poll_seconds is None else self._poll_seconds

    def wake(self, kind: str, is_own: bool) -> None:
        """Wake the threads of the peers that are concerned."""
        for thread in self._peer_threads():
            if is_own or thread.is_relay:
                thread.ask_for(kind)
        self.refresh()

    def refresh(self) -> None:
        """Have the list of peers read anew, if that is due."""
        supervisor = self._pool.find(_SUPERVISOR)
        if not isinstance(supervisor, Supervisor):
            self.serve()
        elif supervisor.is_due:
            supervisor.wake()

    def serve(self) -> None:
        """Look once for what was left when the last process ended."""
        if self._pool.find(_SUPERVISOR) is None:
            self._pool.start(_SUPERVISOR, lambda: Supervisor(self))

    def _peer_threads(self) -> list[PeerThread]:
        loops = (self._pool.find(name) for name in self._pool.names())
        return [loop for loop in loops if isinstance(loop, PeerThread)]

    def reconcile(self, peers: list[Peer], failing: Mapping[int, set[str]]) -> None:
        """Have a thread for each of ``peers``, and for no other; ``failing`` are the kinds that fail, by peer."""
        wanted = {peer.pk: peer for peer in peers}
        self.slots.are_scarce = len(wanted) > conf.max_deliveries
        for name in self._pool.names():
            if name != _SUPERVISOR and name not in wanted:
                self._pool.stop_loop(name)
        for pk, peer in wanted.items():
            self._pool.start(
                pk,
                lambda: PeerThread(self, peer, failing.get(pk, set())),  # noqa: B023
                lambda thread: thread.is_for(peer),  # noqa: B023
            )

    def drain(self, seconds: float | None = None) -> bool:
        """Wait until everything that can be delivered is delivered, or the time is up; return whether it is."""
        return self._pool.drain(seconds)

    def stop(self, seconds: float | None = None) -> None:
        """End the threads after the page that each is at, for which they have ``seconds``."""
        self._pool.stop(seconds)


class Slots:
    """How many may deliver at a time: a bound to the connections with the database.

    Those that fail share a quarter of the slots: peers that are away, each keeping its slot until a time-out, must
    not keep the others waiting.
    """

    def __init__(self, count: int) -> None:
        self._all = BoundedSemaphore(count)
        self._failing = BoundedSemaphore(max(count // 4, 1))
        #: Whether there are more that want one: then nobody keeps a connection that is not being used.
        self.are_scarce = False

    @contextmanager
    def taken(self, *, is_failing: bool) -> Iterator[None]:
        """Wait for a slot and hold it."""
        if not is_failing:
            with self._all:
                yield
        else:
            with self._failing, self._all:
                yield


class Supervisor(Loop):
    """Keeps the list of peers fresh."""

    def __init__(self, backend: ThreadDelivery) -> None:
        super().__init__("sdata-sync")
        self._backend = backend
        self._looked = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the list may be out of date."""
        return time.monotonic() - self._looked > PEERS_SECONDS

    def act(self, *, woken: bool) -> float:
        """Read the peers."""
        peers = list(Peer.objects.filter(enabled=True, immediate=True))
        # What other processes have found out need not be found out again.
        failing: defaultdict[int, set[str]] = defaultdict(set)
        for peer, kind in Stream.objects.filter(failures__gt=0).values_list("peer_id", "kind"):
            failing[peer].add(kind)
        self._backend.reconcile(peers, failing)
        self._looked = time.monotonic()
        if not woken:
            connections.close_all()
        return self._backend.poll_seconds


class PeerThread(Loop):
    """Delivers to one peer."""

    def __init__(self, backend: ThreadDelivery, peer: Peer, failing: set[str]) -> None:
        super().__init__(f"sdata-sync-{peer.name}")
        self._backend = backend
        self._session = PeerSession(peer)
        self._session.failed |= failing
        self._wanted: set[str] = set()
        self._owes = False
        self.is_relay = peer.relay

    def is_for(self, peer: Peer) -> bool:
        """Tell whether it delivers to ``peer`` as that is configured now."""
        return self.is_alive() and self._session.is_for(peer)

    def ask_for(self, kind: str) -> None:
        """Have it deliver ``kind``."""
        self._wanted.add(kind)
        self.wake()

    def stop(self) -> None:
        """End it after the page that it is at."""
        self._session.interrupt()
        super().stop()

    def act(self, *, woken: bool) -> float:
        """Deliver what was asked for; without having been asked, everything."""
        slots = self._backend.slots
        with slots.taken(is_failing=self._session.is_failing):
            due = self._deliver(woken=woken)
            if not woken or slots.are_scarce:
                connections.close_all()
        if self.is_stopped:
            self._session.close()
        poll = self._backend.poll_seconds
        return poll if due is None else min(max((due - now()) / 1000, 0.01), poll)

    def _deliver(self, *, woken: bool) -> int | None:
        wanted, self._wanted = self._wanted, set()
        everything = self._owes or not wanted
        self._owes = True  # until it is known to have arrived
        if not woken:
            for resource in registry:
                self._session.compare_and_pull(resource)
        due = self._session.deliver(r for r in registry if everything or r.kind in wanted)
        self._owes = due is not None
        return due
