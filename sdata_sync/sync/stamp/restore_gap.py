"""Notice that this node was restored from a backup, before it assigns ticks that its peers have seen already.

A tick that is assigned twice hides one of its two changes. So a process compares the digests of its enabled peers
with its own before it assigns its first tick of a kind (``ensure_checked``, network). If a peer knows a higher tick
of this node, the node continues above that tick and reassigns the ticks that may have been used twice
(``RestoreGap``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db.models import F
from django.db.models.functions import Coalesce
from django.utils import timezone

from ...conf import conf
from ...core.state import FIRST_TICK
from ...exceptions import FeedError
from ...models import Digest as DigestRow
from ...models import Stream, TrackedResource
from ..db.clock import now
from ..db.prepared import PreparedQuery
from ..log.wakeup import wake
from ..port import port

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind
    from ..log.digests import StoredDigest

#: The time until the peers are asked again, if a peer that has lost changes of this node did not return them.
RETRY_SECONDS = 5.0
#: How long a selection or a delivery waits while another thread asks the peers.
PATIENCE_SECONDS = 5.0

_checked: set[str] = set()
_again_at: dict[str, float] = {}
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def is_checked(kind: Kind) -> bool:
    """Return True if this process has done the restore check of a kind, or the settings switch the check off."""
    return kind.name in _checked or not conf.ask_peers_first


def forget_checks() -> None:
    """Have the next ``ensure_checked`` of each kind ask the peers again."""
    _checked.clear()
    _again_at.clear()


def ensure_checked(kind: Kind, *, patience_seconds: float = 0) -> bool:
    """Make sure that this process has read every enabled peer's digest of a kind (network).

    Returns:
        False while the check of the kind is not done: another thread has been at it for longer than
        ``patience_seconds``, or a peer has changes that this node lost and they could not be pulled. Until then no
        tick is assigned.
    """
    kind_name = kind.name
    if is_checked(kind):
        return True
    if not _locks[kind_name].acquire(timeout=patience_seconds):
        return False
    try:
        if kind_name in _checked:
            return True
        if time.monotonic() < _again_at.get(kind_name, 0):
            return False
        if not port().check_peers(kind):
            _again_at[kind_name] = time.monotonic() + RETRY_SECONDS
            return False
        _checked.add(kind_name)
    finally:
        _locks[kind_name].release()
    wake(kind_name)  # for deliveries that found the check not done
    return True


def wait_until_checked(kind: Kind) -> bool:
    """Repeat ``ensure_checked`` for at most ``PATIENCE_SECONDS``, since two nodes may wait for each other."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ensure_checked(kind):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


logger = logging.getLogger(__name__)

_noted: PreparedQuery[DigestRow] = PreparedQuery(
    lambda kind: DigestRow.objects.filter(pk=kind, gap_until__isnull=False).values_list("gap_since", "gap_until"),
    str,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreGap:
    """Hold a restore gap: the ticks of this node, ``since <= tick < until``, that may have been assigned twice."""

    since: int
    until: int

    def __contains__(self, tick: int) -> bool:
        return self.since <= tick < self.until


def note_restore_gap(kind: Kind, stored: StoredDigest) -> RestoreGap:
    """Store a restore gap, because a peer knows higher ticks of this node, or return the gap that is stored already.

    The caller holds the digest's lock. The gap stays stored, across pages, processes and failures, until
    ``take_higher_tick`` closes it.
    """
    if (noted := restore_gap(kind)) is not None:
        return noted
    ours = stored.value.tick(kind.endpoint)
    noted = RestoreGap(since=_confirmed(kind, ours), until=ours)
    DigestRow.objects.using(kind.database).update_or_create(
        pk=kind.name, defaults={"gap_since": noted.since, "gap_until": noted.until}
    )
    return noted


def restore_gap(kind: Kind) -> RestoreGap | None:
    """Return the restore gap that ``note_restore_gap`` has stored, or ``None`` if no peer knows higher ticks."""
    for since, until in _noted.rows(kind.database, kind.name):
        return RestoreGap(since=since or FIRST_TICK, until=until)
    return None


def _confirmed(kind: Kind, ours: int) -> int:
    """Return the tick below which all peers have this node's changes, which are from before the backup."""
    own, ticks = kind.endpoint, []
    for stream in Stream.objects.filter(kind=kind.name):
        known = stream.known_ticks()
        if known is None:
            return FIRST_TICK  # the peer's digest is not known any more: every tick of this node may be used twice
        ticks.append(known.get(own, FIRST_TICK))
    return min(ticks, default=FIRST_TICK if ours > FIRST_TICK else ours)


def take_higher_tick(kind: Kind, stored: StoredDigest, shown: Digest, where: str) -> bool:
    """After a restore, continue above the tick that ``shown`` has for this node; return True if there was a gap.

    The caller holds the digest's lock, and has pulled all the lost changes that peers return. ``where`` names the
    source of ``shown`` in the note. The changes that this node has given ticks since the backup was made are marked, so
    that they get new ticks.

    Raises:
        FeedError: the tick in ``shown`` is more than ``MAX_TICK_LEAP`` above the tick of this node.
    """
    own = kind.endpoint
    ours, theirs = stored.value.tick(own), shown.tick(own)
    noted = restore_gap(kind)
    if theirs <= ours and noted is None:
        return False
    check_leap(kind, ours, theirs)
    noted = noted or note_restore_gap(kind, stored)
    note = (
        f"{where} knows tick {theirs} of this node, which was at tick {noted.until}. This node was restored from a "
        "backup, or another node has the same BASE_URL. It continues from the higher tick."
    )
    logger.error("%s: %s", own, note)
    DigestRow.objects.using(kind.database).filter(pk=kind.name).update(
        gap_since=None, gap_until=None, rejoined_at=timezone.now(), rejoined_note=note
    )
    stored.save(stored.value.raised(own, theirs, stamp=now()))
    _restamp(kind, stored, noted)
    # The known digests of the peers count in the ticks that are given up.
    Stream.objects.filter(kind=kind.name).update(known_digest="")
    return True


def check_leap(kind: Kind, ours: int, theirs: int) -> None:
    """Refuse a claim about the tick of this node that cannot be true.

    Raises:
        FeedError: the claimed tick is more than ``MAX_TICK_LEAP`` above the tick of this node.
    """
    if theirs - ours > conf.max_tick_leap:
        raise FeedError(
            f"Expected a tick of at most {ours + conf.max_tick_leap} for {kind.endpoint}, which is at {ours}; "
            f"received {theirs}."
        )


def _restamp(kind: Kind, stored: StoredDigest, given: RestoreGap) -> None:
    # Not from ``until`` on: those are the lost changes of this node, which have just been pulled.
    TrackedResource.objects.using(kind.database).filter(
        kind=kind.name,
        endpoint_id=stored.ensure_endpoint_id(kind.endpoint),
        tick__gte=given.since,
        tick__lt=given.until,
    ).update(mark=Coalesce("mark", F("stamp")), is_intent=False, mark_user=F("user"), restamp=True)
