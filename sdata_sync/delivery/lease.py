"""Lease the streams: one thread of one process delivers a kind to a peer at a time, so that pages arrive in order.

A process that finds a lease held sets ``Stream.wanted``. The holder checks that column when it releases the lease, and
looks for changes once more if it is set. So one of the two sees every change that was committed.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Collection
from typing import Any

from django.db import router
from django.db.models import F, Q, QuerySet

from ..conf import conf
from ..core.digest import Digest, DigestEntry
from ..exceptions import KindNotShared
from ..models import Peer, Stream
from ..sync.db.clock import SKEW_MILLIS, column_is_recent, column_lies_ahead, lies_ahead, now
from ..sync.db.owner import holder_name, is_gone
from ..sync.db.prepared import PreparedQuery, PreparedUpdate

#: The longest pause after the first failure; each further failure in a row doubles it, up to ``MAX_BACKOFF_SECONDS``.
FIRST_BACKOFF_SECONDS = 0.5

_backoff_ended_at: dict[tuple[int, str], float] = {}


_find = PreparedQuery(lambda peer, kind: Stream.objects.filter(peer=peer, kind=kind), int, str)


def _taking(stream: int, holder: str, now: int, until: int, beyond: int) -> tuple[QuerySet[Stream], dict[str, Any]]:
    free = Q(held_until__lte=now) | Q(held_until__gt=beyond) | Q(holder=holder)
    return Stream.objects.filter(free, pk=stream), {"holder": holder, "held_until": until, "wanted": False}


def _giving_back(
    stream: int,
    holder: str,
    failures: int,
    retry: int,
    success: int,
    error: str,
    at: int,
    known: str,
    failed: int,
    delivered: int,
    millis: int,
) -> tuple[QuerySet[Stream], dict[str, Any]]:
    return Stream.objects.filter(pk=stream, holder=holder, wanted=False), {
        "holder": "",
        "held_until": 0,
        "failures": failures,
        "retry_at": retry,
        "last_success": success,
        "last_error": error,
        "last_error_at": at,
        "known_digest": known,
        "passes": F("passes") + 1,
        "failed_passes": F("failed_passes") + failed,
        "delivered": F("delivered") + delivered,
        "busy_millis": F("busy_millis") + millis,
    }


_take = PreparedUpdate(_taking, int, str, int, int, int)
_give_back = PreparedUpdate(_giving_back, int, str, int, int, int, str, int, str, int, int, int)


def ensure_stream(peer: Peer, kind: str) -> Stream:
    """Return the stream of ``kind`` to ``peer``; insert it if there is none."""
    stream = read_stream(peer, kind)
    if stream.pk is None:
        stream, _ = Stream.objects.get_or_create(peer=peer, kind=kind)
        stream.peer = peer
    return stream


def read_stream(peer: Peer, kind: str) -> Stream:
    """Return the stream of ``kind`` to ``peer``; one that is not stored if there is none."""
    found = _find.instances(database(), Stream, peer.pk, kind)
    stream = found[0] if found else Stream(kind=kind)
    stream.peer = peer
    return stream


def database() -> str:
    """Return the alias of the database that has the streams."""
    return router.db_for_write(Stream)


def known_digest(stream: Stream) -> Digest | None:
    """Return the last known digest of the peer, or ``None`` if it is not known."""
    ticks = stream.known_ticks()
    if ticks is None:
        return None
    return Digest(
        (DigestEntry(endpoint=url, tick=tick) for url, tick in ticks.items()),
        origin=stream.peer.endpoint(stream.kind),
    )


def end_backoff(peer: Peer, kind: str) -> bool:
    """End the back-off of ``peer``, because it has just sent a request.

    Return True if a back-off was ended.
    """
    # A peer that pushes many pages is looked up once per ``FIRST_BACKOFF_SECONDS``.
    if time.monotonic() - _backoff_ended_at.get((peer.pk, kind), -math.inf) < FIRST_BACKOFF_SECONDS:
        return False
    if len(_backoff_ended_at) > 1000:
        _backoff_ended_at.clear()
    _backoff_ended_at[peer.pk, kind] = time.monotonic()
    waiting = Stream.objects.filter(kind=kind, retry_at__gt=now(), peer=peer)
    return bool(waiting.update(retry_at=0))


def is_absent(stream: Stream, error: Exception | None) -> bool:
    """Return True if ``error`` says that the peer does not have the kind, and it never had it before.

    The absence of a kind that the peer had before is an error: its URL or its registration was changed.
    """
    return isinstance(error, KindNotShared) and not was_shared(stream)


def was_shared(stream: Stream) -> bool:
    """Return True if the peer had the kind when it was asked last."""
    return bool(stream.is_shared or stream.last_success)


def store_shared(stream: Stream, *, is_shared: bool) -> None:
    """Store whether the peer has the kind."""
    stream.is_shared = is_shared
    Stream.objects.filter(pk=stream.pk).update(is_shared=is_shared)


def is_backing_off(stream: Stream) -> bool:
    """Return True if the stream waits after a failure."""
    return lies_ahead(stream.retry_at, _max_backoff_millis())


def backing_off() -> Q:
    """Return ``is_backing_off`` as a condition of a query of streams."""
    return column_lies_ahead("retry_at", _max_backoff_millis())


def _max_backoff_millis() -> int:
    return int(conf.max_backoff_seconds * 1000)


def claim_comparison(stream: Stream, pause: int) -> bool:
    """Return True if the caller is to compare digests with the peer: one process in every ``pause`` milliseconds."""
    due = Stream.objects.filter(pk=stream.pk).exclude(column_is_recent("compared_at", pause))
    return bool(due.update(compared_at=now()))


def release_comparison(stream: Stream) -> None:
    """Let the next process compare the digests at once."""
    Stream.objects.filter(pk=stream.pk).update(compared_at=0)


def forget_known_digest(stream: Stream) -> None:
    """Forget the known digest of the peer, so that the next delivery reads it."""
    Stream.objects.filter(pk=stream.pk).update(known_digest="")


def store_left_out(stream: Stream, endpoints: Collection[str]) -> None:
    """Store the endpoints, in lower case, for which the peer does not accept the ticks of this node's digest."""
    stream.left_out = "\n".join(sorted(endpoints))
    Stream.objects.filter(pk=stream.pk).update(left_out=stream.left_out)


def store_failure(stream: Stream, error: Exception) -> None:
    """Store an error that occurred outside a delivery."""
    Stream.objects.filter(pk=stream.pk).update(last_error=str(error)[:2000], last_error_at=now())


class Lease:
    """The right to deliver one stream, until it is released or expires."""

    def __init__(self, stream: Stream, holder: str) -> None:
        self.stream = stream
        self._holder = holder
        self._renew_at = _renewal()
        self._taken = time.monotonic()

    @classmethod
    def take(cls, stream: Stream) -> Lease | None:
        """Take the lease of a stream; if it is held, set ``wanted`` and return ``None``."""
        holder = holder_name()
        while True:
            if _take.execute(database(), stream.pk, holder, now(), _lease_end(), _lease_end() + SKEW_MILLIS):
                return cls(ensure_stream(stream.peer, stream.kind), holder)
            row = Stream.objects.filter(pk=stream.pk)
            if _end_lease_of_the_dead(row):
                continue
            # The holder may have released the lease between the two statements and would not see ``wanted``.
            if row.filter(held_until__gt=now()).update(wanted=True) or not row.exists():
                return None

    def _row(self) -> QuerySet[Stream]:
        return Stream.objects.filter(pk=self.stream.pk, holder=self._holder)

    def renew(self, known: Digest | None) -> bool:
        """Extend the lease and store the known digest; return False if another process has taken the lease.

        The database is written only when a third of ``LEASE_SECONDS`` has passed since it was written last.
        """
        if time.monotonic() < self._renew_at:
            return True
        self._renew_at = _renewal()
        return bool(self._row().update(held_until=_lease_end(), known_digest=_as_json(known)))

    def give_back(self, known: Digest | None, error: Exception | None = None, *, delivered: int = 0) -> bool:
        """Release the lease and store the outcome; return True if the caller must look for changes again.

        That is the case if another process has set ``wanted``, or has taken the lease after it had expired. After an
        ``error`` it is never the case: the back-off decides when the stream is tried again.

        ``known`` is the digest of the peer, ``None`` if it is not known. ``delivered`` is the number of entries that
        the peer has accepted.
        """
        millis = int((time.monotonic() - self._taken) * 1000)
        if is_absent(self.stream, error):
            store_shared(self.stream, is_shared=False)
            error = None
        elif error is None and not self.stream.is_shared:
            store_shared(self.stream, is_shared=True)
        outcome = (*self._outcome(error), _as_json(known), int(error is not None), delivered, millis)
        if _give_back.execute(database(), self.stream.pk, self._holder, *outcome):
            return False
        # Another process has set ``wanted``, or has taken the lease after it had expired.
        while self._row().update(wanted=False):
            if _give_back.execute(database(), self.stream.pk, self._holder, *outcome):
                break
        return error is None

    def _outcome(self, error: Exception | None) -> tuple[int, int, int, str, int]:
        """Return the failures, when to try again, the last success, the last error and its time."""
        stream = self.stream
        if error is None:
            return 0, 0, 0 if stream.is_shared is False else now(), "", stream.last_error_at
        failures = stream.failures + 1
        # Half of the pause is random, so that streams which failed together are not tried again together.
        pause = min(FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 20), conf.max_backoff_seconds)
        pause *= random.uniform(0.5, 1.0)  # noqa: S311  not a secret
        return failures, now() + int(pause * 1000), stream.last_success, str(error)[:2000], now()


def _end_lease_of_the_dead(row: QuerySet[Stream]) -> bool:
    """End the lease of a process of this host that was killed while it held the lease; return True if it did.

    If two processes deliver after all, the peer ignores changes that it has, refuses ticks that do not continue, and
    a catch-up follows.
    """
    holder = row.values_list("holder", flat=True).first() or ""
    return is_gone(holder) and bool(row.filter(holder=holder).update(held_until=0))


def _renewal() -> float:
    return time.monotonic() + conf.lease_seconds / 3


def _lease_end() -> int:
    return now() + int(conf.lease_seconds * 1000)


def _as_json(known: Digest | None) -> str:
    return "" if known is None else json.dumps({entry.endpoint: entry.tick for entry in known})
