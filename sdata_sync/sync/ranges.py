"""The ranges of ticks that a target lacks, and what is tracked in them."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models import Exists, OuterRef, QuerySet

from ..core.digest import Digest
from ..core.selection import TickRange, missing_ranges
from ..models import DigestEntry, TrackedResource
from ..resources import SyncResource
from .digests import StoredDigest

#: So many endpoints are looked at one by one; of more it is asked first which of them have anything at all.
FEW = 8


def missing_and_inhabited(
    resource: SyncResource,
    stored: StoredDigest,
    target: Digest,
    *,
    wanted: Callable[[str], bool] = lambda endpoint: True,
) -> list[tuple[TickRange, bool]]:
    """Return what ``target`` lacks, each range with whether there may be anything in it.

    ``wanted`` narrows the endpoints. Of most of many endpoints a node holds nothing: others have changed their rows
    since.
    """
    ranges = [missing for missing in missing_ranges(stored.value, target) if wanted(missing.endpoint)]
    if len(ranges) <= FEW:
        return [(missing, True) for missing in ranges]
    tracked = TrackedResource.objects.filter(kind=resource.kind, endpoint=OuterRef("endpoint"))
    entries = DigestEntry.objects.using(resource.database).filter(Exists(tracked), digest=resource.kind)
    inhabited = set(entries.values_list("endpoint_id", flat=True))
    return [(missing, stored.endpoint_id(missing.endpoint) in inhabited) for missing in ranges]


def in_range(resource: SyncResource, stored: StoredDigest, missing: TickRange) -> QuerySet[TrackedResource]:
    """Return the resources whose last change is in ``missing``."""
    return TrackedResource.objects.using(resource.database).filter(
        kind=resource.kind,
        endpoint_id=stored.endpoint_id(missing.endpoint),
        tick__gte=missing.start,
        tick__lt=missing.end,
    )
