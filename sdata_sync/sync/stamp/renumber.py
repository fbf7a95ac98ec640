"""The way back of a node whose clock was driven out of reach by a false claim, before such claims were bounded.

The node lowers its own tick to above every version of its that is known anywhere. Each peer then confirms: an
administrator lets it lower its entry for that endpoint to what the endpoint's own ``$syncDigest`` says.
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
from .stamper import number_all_under_lock

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind

#: Versions of this node with a tick beyond it were given by a clock that had been driven out of reach.
HIGHEST_USABLE = MAX_TICK // 2
#: Ticks above the highest known version that may have been used by versions which are known nowhere any more.
MARGIN = 2**20


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """By which tick another was replaced; both are equal if nothing was to be done."""

    before: int
    after: int


def renumber(resource: Kind, highest_elsewhere: int) -> Lowered:
    """Lower this node's tick to just above its versions, if it is out of reach; stamp anew what it gave up there.

    ``highest_elsewhere`` is the highest tick of a version of this node that a peer has.
    """
    lowered = atomically(resource.database, partial(_renumber, resource, highest_elsewhere))
    wake_after_commit(resource.kind, resource.database)
    return lowered


def _renumber(resource: Kind, highest_elsewhere: int) -> Lowered:
    stored = lock_digest(resource)
    own = stored.value.entry(resource.endpoint)
    assert own is not None
    versions = TrackedResource.objects.using(resource.database).filter(
        kind=resource.kind, endpoint_id=stored.endpoint_id(resource.endpoint)
    )
    highest = versions.filter(tick__lte=HIGHEST_USABLE).aggregate(highest=Max("tick"))["highest"] or 0
    wanted = max(highest, highest_elsewhere) + MARGIN
    if own.tick <= wanted + conf.max_tick_leap:
        return Lowered(before=own.tick, after=own.tick)
    stored.save(stored.value.with_entry(replace(own, tick=wanted, stamp=now())))
    DigestRow.objects.using(resource.database).filter(pk=resource.kind).update(behind_since=None, behind_until=None)
    versions.filter(tick__gt=HIGHEST_USABLE).update(
        mark=Coalesce("mark", F("stamp")), is_intent=False, mark_user=F("user"), restamp=True
    )
    number_all_under_lock(resource, stored)
    # What the peers are remembered to have was learned under the ticks that are given up.
    Stream.objects.filter(kind=resource.kind).update(known_digest="")
    return Lowered(before=own.tick, after=wanted)


def confirm(resource: Kind, endpoint: str, shown: Digest) -> Lowered:
    """Lower our entry for ``endpoint`` if it is higher than what the endpoint's own digest, ``shown``, says.

    It becomes the tick after the highest version of the endpoint that is held here: what the endpoint has recorded
    since it was renumbered has not come. Versions that are held with a tick beyond ``shown`` count as older than any
    that the endpoint brings.
    """
    return atomically(resource.database, partial(_confirm, resource, endpoint, shown.tick(endpoint)))


def _confirm(resource: Kind, endpoint: str, tick: int) -> Lowered:
    stored: StoredDigest = lock_digest(resource)
    present = stored.value.entry(endpoint)
    if present is None or present.tick <= tick:
        before = FIRST_TICK if present is None else present.tick
        return Lowered(before=before, after=before)
    pk = stored.endpoint_id(endpoint)
    tracked = TrackedResource.objects.using(resource.database).filter(kind=resource.kind)
    tracked.filter(endpoint=pk, tick__gte=tick).update(tick=0)
    tracked.filter(first_endpoint_id=pk, first_tick__gte=tick).update(first_tick=0)
    held = tracked.filter(endpoint=pk).aggregate(highest=Max("tick"))["highest"] or 0
    tick = min(tick, held + 1)
    DigestEntry.objects.using(resource.database).filter(digest=resource.kind, endpoint=pk).update(
        tick=tick, stamp=now(), shown_tick=tick, heard_tick=FIRST_TICK
    )
    Stream.objects.filter(kind=resource.kind).update(known_digest="")
    return Lowered(before=present.tick, after=tick)
