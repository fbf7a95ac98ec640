"""The default backend: one thread for each peer, in the process that writes. It needs no broker and no worker.

The threads start with the first change or request, and start anew in a forked child. They are daemons: a process that
ends continues to deliver for at most ``DRAIN_SECONDS``.
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
from ..session import PeerSession, has_errands
from ..threads.loop import Loop
from ..threads.pool import Pool
from .base import DeliveryBackend

#: The greatest age of the list of peers at a delivery.
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
        """The pause, in seconds, between two looks for changes without a wake-up."""
        return conf.poll_seconds if self._poll_seconds is None else self._poll_seconds

    def wake(self, kind: str, is_own: bool) -> None:
        """Wake the threads of the peers that get the change."""
        for thread in self._peer_threads():
            if is_own or thread.is_relay or has_errands(kind):
                thread.ask_for(kind)
        self.refresh()

    def refresh(self) -> None:
        """Make the supervisor read the list of peers again, if that is due."""
        supervisor = self._pool.find(_SUPERVISOR)
        if not isinstance(supervisor, Supervisor):
            self.serve()
        elif supervisor.is_due:
            supervisor.wake()

    def serve(self) -> None:
        """Start the supervisor, which also delivers changes from before the start of this process."""
        if self._pool.find(_SUPERVISOR) is None:
            self._pool.start(_SUPERVISOR, lambda: Supervisor(self))

    def _peer_threads(self) -> list[PeerThread]:
        loops = (self._pool.find(name) for name in self._pool.names())
        return [loop for loop in loops if isinstance(loop, PeerThread)]

    def reconcile(self, peers: list[Peer], failing: Mapping[int, set[str]]) -> None:
        """Start a thread for each of ``peers``, stop all other threads; ``failing`` are the failing kinds by peer."""
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
        """Wait until all deliveries are done, for at most ``seconds``; return False on a timeout."""
        return self._pool.drain(seconds)

    def stop(self, seconds: float | None = None) -> None:
        """Stop the threads after the page that each is posting; wait for at most ``seconds``."""
        self._pool.stop(seconds)


class Slots:
    """Bounds the number of threads that deliver at the same time, and so the number of database connections.

    Threads of failing peers share a quarter of the slots: unreachable peers, each of which keeps its slot until a
    timeout, must not block the other peers.
    """

    def __init__(self, count: int) -> None:
        self._all = BoundedSemaphore(count)
        self._failing = BoundedSemaphore(max(count // 4, 1))
        #: There are more peers than slots: then a thread closes its connection when it has delivered.
        self.are_scarce = False

    @contextmanager
    def taken(self, *, is_failing: bool) -> Iterator[None]:
        """Wait for a slot and hold it inside the ``with`` block."""
        if not is_failing:
            with self._all:
                yield
        else:
            with self._failing, self._all:
                yield


class Supervisor(Loop):
    """Reads the list of peers and starts their threads."""

    def __init__(self, backend: ThreadDelivery) -> None:
        super().__init__("sdata-sync")
        self._backend = backend
        self._looked = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the list of peers is older than ``PEERS_SECONDS``."""
        return time.monotonic() - self._looked > PEERS_SECONDS

    def act(self, *, woken: bool) -> float:
        """Read the enabled peers and reconcile the threads with them."""
        peers = list(Peer.objects.filter(enabled=True, immediate=True))
        # Another process may have found that a kind fails; a thread that starts now shares the slots of failing peers.
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
        self._has_pending = False
        self.is_relay = peer.relay

    def is_for(self, peer: Peer) -> bool:
        """Return True if the thread is alive and its peer has the same configuration as ``peer``."""
        return self.is_alive() and self._session.is_for(peer)

    def ask_for(self, kind: str) -> None:
        """Request a delivery of ``kind``."""
        self._wanted.add(kind)
        self.wake()

    def stop(self) -> None:
        """Stop after the page that is being posted."""
        self._session.interrupt()
        super().stop()

    def act(self, *, woken: bool) -> float:
        """Deliver the requested kinds; after a pause without a request, compare and deliver all kinds."""
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
        everything = self._has_pending or not wanted
        self._has_pending = True  # until the delivery below has succeeded
        if not woken:
            for kind in registry:
                self._session.compare_and_pull(kind)
        due = self._session.deliver(r for r in registry if everything or r.name in wanted)
        self._has_pending = due is not None
        return due
