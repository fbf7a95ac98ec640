"""Limit which claims of a received digest, and of the states of received entries, this node believes.

A claim that cannot be true is left out and reported; the rest of the feed is applied. Four kinds of claims are
bounded:

* about this node itself: a tick beyond its own is believed from an enabled peer only, and only within
  ``MAX_TICK_LEAP``. It starts the restore procedure (``stamp.restore_gap``);
* about other endpoints: a tick is believed up to ``MAX_TICK_LEAP`` above the highest tick that the endpoint has shown.
  A peer shows its ticks itself, in its digest and with the versions that it delivers; then it believes what is claimed
  of it here. Of an endpoint that is no peer, relayed versions show the ticks. An endpoint may claim a tick of itself up
  to twice that distance: after a restore it continues above the ticks that other endpoints have claimed of it;
* about new endpoints: the digest of a kind accepts at most ``MAX_ENDPOINTS`` other endpoints, and none that was
  forgotten with ``sync_purge --endpoints``.

* about the time: a stamp more than ``MAX_STAMP_AHEAD_SECONDS`` ahead of this node's clock counts as the earliest stamp
  in decisions, and the version with it is deferred.

A feed that speaks for no enabled peer, from a login without ``carry_feeds``, brings changes of its own endpoint only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from django.utils import timezone

from ..conf import conf
from ..core.state import SyncState, same_endpoint, stamp_after
from ..core.text import fold
from ..exceptions import FeedError
from ..models import Endpoint
from .db.statements import chunks
from .log.digests import StoredDigest, load_digest

if TYPE_CHECKING:
    from ..core.digest import Digest, DigestEntry
    from ..kind import Kind
    from .trust import Speaker

logger = logging.getLogger(__name__)

#: The maximum number of claims that a report names.
NAMED = 3
#: Logins that belong to no peer may introduce ``MAX_ENDPOINTS`` divided by this number of endpoints.
UNTRUSTED_SHARE = 10


def latest_stamp(at: int) -> int:
    """Return the latest stamp that is believed at the time ``at``; both in milliseconds since 1970."""
    return at + int(conf.max_stamp_ahead_seconds * 1000)


def believed_stamp(state: SyncState, at: int) -> SyncState:
    """Return ``state``; with the stamp 0 if its stamp is not believed at the time ``at``."""
    return state if state.stamp <= latest_stamp(at) else replace(state, stamp=0)


def stamp_after_believed(at: int, *replaced: int) -> int:
    """Return ``core.state.stamp_after`` of the ``replaced`` stamps that are believed at the time ``at``."""
    return stamp_after(at, *(stamp for stamp in replaced if stamp <= latest_stamp(at)))


def check_size(digest: Digest) -> Digest:
    """Return the received ``digest`` unchanged, after checking its size.

    Raises:
        FeedError: ``digest`` names more than ``MAX_ENDPOINTS`` endpoints beside its own and this node's.
    """
    others = len(digest) - 2  # without its own endpoint and this node's
    if others > conf.max_endpoints:
        raise FeedError(
            f"Expected a digest of at most {conf.max_endpoints} other endpoints (SDATA_SYNC['MAX_ENDPOINTS']), "
            f"received one of {others}.",
            payload_path="digest",
        )
    return digest


def is_restore(ours: int, claimed: int, speaker: Speaker) -> bool:
    """Return True if the claim of ``speaker`` that this node is at tick ``claimed``, and not ``ours``, is believed.

    It is believed within ``MAX_TICK_LEAP``, from an enabled peer.
    """
    return 0 <= claimed - ours <= conf.max_tick_leap and speaker.peer is not None


def believed(kind: Kind, digest: Digest) -> Digest:
    """Return the believed part of a received digest that is not adopted, but that a deferred deletion waits for.

    The deletion would wait for ever for an endpoint that this node's digest would not name, or not at that tick.
    """
    stored = load_digest(kind)
    forgotten = _forgotten(kind, (entry.endpoint for entry in digest if entry.endpoint not in stored))
    is_full = stored.count_others(kind.endpoint, digest.origin) >= conf.max_endpoints
    return digest.without(
        entry.endpoint
        for entry in digest
        if entry.tick > stored.shown_tick(entry.endpoint) + 2 * conf.max_tick_leap
        or fold(entry.endpoint) in forgotten
        or (is_full and entry.endpoint not in stored)
    )


class Bounds:
    """Apply the bounds to one page; ``source`` is the believed part of its digest.

    ``restores`` is true if the digest may have a tick of this node that this node has lost in a restore.
    """

    def __init__(self, kind: Kind, stored: StoredDigest, source: Digest, *, restores: bool, speaker: Speaker) -> None:
        self._kind = kind
        self.speaker = speaker
        self._stored = stored
        self._restores = restores
        self._origin = source.origin
        # Only a part of the room for endpoints is for feeds that speak for no peer.
        self._room = conf.max_endpoints if speaker.is_trusted else conf.max_endpoints // UNTRUSTED_SHARE
        self._new: set[str] = set()
        self._others = stored.count_others(kind.endpoint, source.origin)
        self._forgotten = _forgotten(kind, (e.endpoint for e in source if e.endpoint not in stored))
        #: The highest tick with which an entry is applied, by endpoint as the entries spell it.
        self._allowed: dict[str, int] = {}
        self._leap = conf.max_tick_leap
        self._notes: list[str] = []
        self._is_full = False
        self.source = self._believed(check_size(source))

    def _believed(self, source: Digest) -> Digest:
        left_out = [entry for entry in source if not self._is_believed(entry)]
        own = source.entry(source.origin)
        if own is not None and own not in left_out:
            self._stored.show(own.endpoint, own.tick)
        # Of a known endpoint the source may well have all that this node has, so this node's tick replaces the claim.
        known = [replace(e, tick=self._stored.value.tick(e.endpoint)) for e in left_out if e.endpoint in self._stored]
        source = source.without(entry.endpoint for entry in left_out)
        for entry in known:
            source = source.with_entry(entry)
        return source

    def _is_believed(self, entry: DigestEntry) -> bool:
        endpoint, tick = entry.endpoint, entry.tick
        if tick <= self._stored.value.tick(endpoint):
            return endpoint in self._stored or self._may_name(endpoint)
        if same_endpoint(endpoint, self._kind.endpoint):
            if not self._restores:
                self._notes.append(f"that this node is at tick {tick}")
            return self._restores
        if tick > self._limit(endpoint):
            self._notes.append(f"that {endpoint} is at tick {tick}")
            return False
        return self._may_name(endpoint)

    def _limit(self, endpoint: str) -> int:
        """Return the highest tick of ``endpoint`` that is believed."""
        leaps = 2 if same_endpoint(endpoint, self._origin) else 1
        return self._stored.shown_tick(endpoint) + leaps * self._leap

    def _may_name(self, endpoint: str) -> bool:
        """Return True if the digest of the kind may name ``endpoint``; count it if it is new."""
        if endpoint in self._stored:
            return True
        if fold(endpoint) in self._forgotten:
            return False
        if same_endpoint(endpoint, self._origin):
            if self.speaker.is_trusted:
                return True
        elif not self.speaker.is_trusted:
            return False
        if self._others + len(self._new) >= self._room:
            if not self._is_full:
                self._notes.append(f"more than {self._room} endpoints")
            self._is_full = True
            return False
        self._new.add(fold(endpoint))
        return True

    def may_bring(self, state: SyncState) -> bool:
        """Return True if the speaker may bring a change of the endpoint in ``state``.

        A speaker that is not trusted may bring changes of its own endpoint, and return those of this node.
        """
        if self.speaker.is_trusted:
            return True
        return same_endpoint(state.endpoint, self._origin) or same_endpoint(state.endpoint, self._kind.endpoint)

    @property
    def priorities(self) -> Digest:
        """Return the digest whose conflict priorities are believed; of a speaker that is not trusted, only its own."""
        return self.source if self.speaker.is_trusted else self.source.of_origin_alone()

    def refuse(self, state: SyncState) -> str:
        """Return why an entry with ``state`` cannot be applied, or an empty text if it can."""
        allowed = self._allowed.get(state.endpoint)
        if allowed is None:
            allowed = self._allowed[state.endpoint] = self._highest_allowed(state.endpoint)
        return "" if state.tick <= allowed else self._reason(state)

    def _highest_allowed(self, endpoint: str) -> int:
        """Return the highest tick of ``endpoint`` with which an entry is applied, -1 if none is."""
        if same_endpoint(endpoint, self._kind.endpoint):
            return max(self._stored.value.tick(endpoint), self.source.tick(endpoint)) - 1
        self._forgotten.discard(fold(endpoint))
        if fold(endpoint) not in self._new and not self._may_name(endpoint):
            return -1
        return self._limit(endpoint)

    def _reason(self, state: SyncState) -> str:
        endpoint = state.endpoint
        if self._allowed[endpoint] == -1 and not same_endpoint(endpoint, self._kind.endpoint):
            return f"This node knows {self._room} endpoints of this kind already (MAX_ENDPOINTS)."
        self._notes.append(f"a change of {endpoint} at tick {state.tick}")
        if same_endpoint(endpoint, self._kind.endpoint):
            return f"This node has not recorded tick {state.tick} yet, and the claim is not believed."
        return f"The tick {state.tick} of {endpoint} is too far above the ticks that it has shown."

    def add_claim(self, claim: str) -> None:
        """Add a claim that cannot be true to the report."""
        self._notes.append(claim)

    def report(self) -> None:
        """Log the claims that were left out and store them on the endpoint; call it after the page is applied."""
        if not self._notes:
            return
        more = f" and {len(self._notes) - NAMED} more" if len(self._notes) > NAMED else ""
        note = f"It claimed {'; '.join(self._notes[:NAMED])}{more}. This cannot be true, and was left out."
        logger.error("%s, in a feed of %s: %s", self._origin or "an unnamed source", self._kind.name, note)
        rows = Endpoint.objects.using(self._kind.database).filter(key=fold(self._origin))
        rows.update(anomaly_at=timezone.now(), anomaly_note=note[:2000])


def _forgotten(kind: Kind, urls: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for chunk in chunks(fold(url) for url in urls):
        rows = Endpoint.objects.using(kind.database).filter(key__in=chunk, is_forgotten=True)
        found.update(rows.values_list("key", flat=True))
    return found
