"""Deliver from the workers of a task queue.

A message is a wake-up. It may be lost, doubled or late: the changes are in the database, one worker at a time has the
lease of a stream, and a job without changes to deliver ends at once.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from django.db.models import Q

from ...models import Peer, Stream
from ...registry import registry
from ...sync.db.clock import column_is_recent, now
from ..lease import backing_off, ensure_stream
from ..session import has_errands
from ..threads.notifier import Notifier
from ..threads.pool import Pool
from .base import DeliveryBackend

logger = logging.getLogger(__name__)

#: The time after which a message that no worker has taken counts as lost, and another one is posted.
LOST_MILLIS = 60_000


class Post(Protocol):
    """Puts a job of ``jobs`` into the queue, to be run after ``delay`` seconds.

    Returns False if the queue cannot delay jobs. Then no job is posted, and the next heartbeat delivers.
    """

    def __call__(self, job: str, *arguments: object, delay: float = 0) -> bool: ...


class QueueDelivery(DeliveryBackend):
    """Leaves the work to a task queue; a subclass implements ``post``."""

    def __init__(self) -> None:
        self._pool = Pool()

    def post(self, job: str, *arguments: object, delay: float = 0) -> None:
        """Put a job into the queue.

        Raises:
            Exception: an error of the queue, as its client raises it.
        """
        raise NotImplementedError

    def wake(self, kind: str, is_own: bool) -> None:
        """Notify the workers, from a thread, so that a writer never waits for an unreachable broker."""
        self._notifier().notify(kind, is_own)

    def carry_out(self, operation: int) -> None:
        """Request that a worker carries out the operation."""
        self._notifier().request_operation(operation)

    def drain(self, seconds: float | None = None) -> bool:
        """Wait until all notifications are sent, for at most ``seconds``; return False on a timeout."""
        return self._pool.drain(seconds)

    def stop(self) -> None:
        """Stop the thread that posts."""
        self._pool.stop()

    def _notifier(self) -> Notifier:
        return self._pool.start("notifier", lambda: Notifier(self._send_kinds, self._send_operation))

    def _send_kinds(self, kinds: dict[str, bool]) -> None:
        claimed = claim_deliveries(kinds)
        try:
            while claimed:
                peer, wanted = next(iter(claimed.items()))
                self.post("deliver", peer, wanted)
                del claimed[peer]
        finally:
            for peer, wanted in claimed.items():
                take_claims(peer, wanted)

    def _send_operation(self, operation: int) -> None:
        self.post("carry_out", operation)


def claim_deliveries(kinds: dict[str, bool]) -> dict[int, list[str]]:
    """Return the deliveries to post, kinds by peer, and set ``posted_at`` of their streams.

    A stream in its back-off is left out. So is a stream with a message that no worker has taken yet: a queue without
    workers does not grow with every save. Two processes may claim the same delivery at the same time.
    """
    peers = Peer.objects.filter(enabled=True, immediate=True).values_list("pk", "relay")
    pairs = [
        (peer, kind_name)
        for peer, relay in peers
        for kind_name, is_own in kinds.items()
        if is_own or relay or has_errands(kind_name)
    ]
    if not pairs:
        return {}
    streams = Stream.objects.filter(kind__in=list(kinds), peer__enabled=True, peer__immediate=True)
    spared = set(streams.filter(backing_off() | _posted()).values_list("peer_id", "kind"))
    wanted: defaultdict[int, list[str]] = defaultdict(list)
    order = {kind.name: place for place, kind in enumerate(registry)}
    for peer, kind_name in sorted(pairs, key=lambda pair: order.get(pair[1], 0)):
        if (peer, kind_name) not in spared:
            wanted[peer].append(kind_name)
    for peer, claimed in wanted.items():
        Stream.objects.filter(peer=peer, kind__in=claimed).update(posted_at=now())
    return dict(wanted)


def claim(peer: Peer, kinds: Iterable[str]) -> list[str]:
    """Return those of ``kinds`` that have no message in the queue for ``peer``, and set ``posted_at`` of them."""
    streams = Stream.objects.filter(pk__in=[ensure_stream(peer, kind).pk for kind in kinds])
    free = list(streams.exclude(_posted()).values_list("kind", flat=True))
    streams.filter(kind__in=free).update(posted_at=now())
    return free


def _posted() -> Q:
    return column_is_recent("posted_at", LOST_MILLIS)


def take_claims(peer: int, kinds: Iterable[str]) -> None:
    """Clear ``posted_at``: a worker has taken the message.

    It is called before the worker looks for changes, so that a change which is committed later is posted again.
    """
    Stream.objects.filter(peer=peer, kind__in=list(kinds), posted_at__gt=0).update(posted_at=0)
