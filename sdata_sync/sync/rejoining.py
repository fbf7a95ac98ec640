"""Coming back from a backup: somebody knows ticks of ours that we do not.

A tick that is given twice hides one of its two changes from everybody who has the other. So this node goes on from
the highest tick that anybody shows for it, and what it may have numbered with used ticks is numbered again.
"""

import logging

from django.db.models import F
from django.utils import timezone

from ..core.digest import Digest
from ..core.state import MAX_LEAP
from ..exceptions import FeedError
from ..models import Digest as DigestRow
from ..models import Stream, TrackedResource
from ..resources import SyncResource
from .clock import now
from .digests import StoredDigest

logger = logging.getLogger(__name__)


def take_higher_tick(resource: SyncResource, stored: StoredDigest, shown: Digest, where: str) -> bool:
    """Go on from the tick that ``shown`` has for us, if it is above ours; return whether it was.

    Under the digest's lock. ``where`` says who showed it, for the log. What this node has numbered since the
    backup was made has ticks that the peers were not known to have at that time.

    Raises:
        FeedError: the tick is so high that it cannot be ours.
    """
    own = resource.endpoint
    ours, theirs = stored.value.tick(own), shown.tick(own)
    if theirs <= ours:
        return False
    check_leap(resource, ours, theirs)
    note = (
        f"{where} knows our tick {theirs}, we stood at {ours}. This node was restored from a backup, or another node "
        "has our BASE_URL. It goes on from the higher tick."
    )
    logger.error("%s: %s", own, note)
    DigestRow.objects.using(resource.database).update_or_create(
        pk=resource.kind, defaults={"rejoined_at": timezone.now(), "rejoined_note": note}
    )
    stored.save(stored.value.raised(own, theirs, stamp=now()))
    streams = Stream.objects.filter(kind=resource.kind)
    known = [ticks.get(own, ours) for stream in streams if (ticks := stream.known_ticks())]
    _number_again(resource, stored, since=min(known, default=ours), until=ours)
    # What the peers are remembered to have was learned under the ticks that are given up.
    streams.update(known_digest="")
    return True


def check_leap(resource: SyncResource, ours: int, theirs: int) -> None:
    """Refuse a claim about ourselves that cannot be true.

    Raises:
        FeedError
    """
    if theirs - ours > MAX_LEAP:
        raise FeedError(
            f"Expected a tick of at most {ours + MAX_LEAP} for {resource.endpoint}, which stands at {ours}; "
            f"received {theirs}."
        )


def _number_again(resource: SyncResource, stored: StoredDigest, *, since: int, until: int) -> None:
    # Not from ``until`` on: those are our own lost changes, which have just come back.
    TrackedResource.objects.using(resource.database).filter(
        kind=resource.kind, endpoint_id=stored.endpoint_id(resource.endpoint), tick__gte=since, tick__lt=until
    ).update(mark=F("stamp"), is_intent=False, mark_user=F("user"), etag="")
