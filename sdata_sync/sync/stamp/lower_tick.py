"""Lower ticks that a false claim has raised out of reach, at a node from before such claims were bounded.

The node lowers its own tick to above every version of its own that any node has. Each peer then confirms: its
administrator lets it lower its entry for that endpoint to the tick in the endpoint's own ``$syncDigest``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from django.db.models import F, Max
from django.db.models.functions import Coalesce

from ...conf import conf
from ...core.state import FIRST_TICK, MAX_TICK
from ...models import Digest as DigestRow
from ...models import DigestEntry, Stream, TrackedResource
from ..db.clock import now
from ..db.retry import atomically
from ..log.digests import StoredDigest, lock_digest
from ..log.wakeup import wake_after_commit
from .stamper import assign_ticks_under_lock

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind

#: Higher ticks of this node's versions were assigned while its clock was out of reach.
HIGHEST_USABLE = MAX_TICK // 2
#: The number of ticks to skip above the highest known version: versions that no node has any more may have used them.
MARGIN = 2**20


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """Hold a tick before and after it was lowered; both are equal if nothing had to be done."""

    before: int
    after: int


def lower_own_tick(kind: Kind, highest_elsewhere: int) -> Lowered:
    """Lower this node's tick to above its versions if it is out of reach, and assign new ticks to versions up there.

    ``highest_elsewhere`` is the highest tick of a version of this node that a peer has.
    """
    lowered = atomically(kind.database, partial(_lower_own_tick, kind, highest_elsewhere))
    wake_after_commit(kind.name, kind.database)
    return lowered


def _lower_own_tick(kind: Kind, highest_elsewhere: int) -> Lowered:
    stored = lock_digest(kind)
    own = stored.value.entry(kind.endpoint)
    assert own is not None
    versions = TrackedResource.objects.using(kind.database).filter(
        kind=kind.name, endpoint_id=stored.ensure_endpoint_id(kind.endpoint)
    )
    highest = versions.filter(tick__lte=HIGHEST_USABLE).aggregate(highest=Max("tick"))["highest"] or 0
    wanted = max(highest, highest_elsewhere) + MARGIN
    if own.tick <= wanted + conf.max_tick_leap:
        return Lowered(before=own.tick, after=own.tick)
    stored.save(stored.value.with_entry(replace(own, tick=wanted, stamp=now())))
    DigestRow.objects.using(kind.database).filter(pk=kind.name).update(gap_since=None, gap_until=None)
    versions.filter(tick__gt=HIGHEST_USABLE).update(
        mark=Coalesce("mark", F("stamp")), is_intent=False, mark_user=F("user"), restamp=True
    )
    assign_ticks_under_lock(kind, stored)
    # The known digests of the peers count in the ticks that are given up.
    Stream.objects.filter(kind=kind.name).update(known_digest="")
    return Lowered(before=own.tick, after=wanted)


def confirm(kind: Kind, endpoint: str, shown: Digest) -> Lowered:
    """Lower this node's entry for ``endpoint`` if it is higher than the tick in ``shown``, the endpoint's own digest.

    The entry becomes the tick after the highest version of the endpoint that this node has, because changes that the
    endpoint has recorded since it lowered its tick have not arrived. Versions that this node has with a tick beyond
    ``shown`` count from now on as older than any version that the endpoint sends.
    """
    return atomically(kind.database, partial(_confirm, kind, endpoint, shown.tick(endpoint)))


def _confirm(kind: Kind, endpoint: str, tick: int) -> Lowered:
    stored: StoredDigest = lock_digest(kind)
    present = stored.value.entry(endpoint)
    if present is None or present.tick <= tick:
        before = FIRST_TICK if present is None else present.tick
        return Lowered(before=before, after=before)
    pk = stored.ensure_endpoint_id(endpoint)
    tracked = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    tracked.filter(endpoint=pk, tick__gte=tick).update(tick=0)
    tracked.filter(first_endpoint_id=pk, first_tick__gte=tick).update(first_tick=0)
    held = tracked.filter(endpoint=pk).aggregate(highest=Max("tick"))["highest"] or 0
    tick = min(tick, held + 1)
    DigestEntry.objects.using(kind.database).filter(digest=kind.name, endpoint=pk).update(
        tick=tick, stamp=now(), shown_tick=tick, received_tick=FIRST_TICK, delivered_tick=tick
    )
    Stream.objects.filter(kind=kind.name).update(known_digest="")
    return Lowered(before=present.tick, after=tick)
