"""A node that has only a part of a kind cannot vouch for the whole of it.

At the end of a catch-up feed a target takes over all that the source claims to contain. Somebody who gets only a part
takes that over too, and whoever believed it would never learn of the rest. So a part is exchanged with the node that
chose it, and with no other.
"""

from __future__ import annotations

from ..core.digest import Digest
from ..core.state import same_endpoint
from ..exceptions import FeedRefused
from ..models import Digest as DigestRow
from ..models import Peer
from ..resources import SyncResource


def chooses_part(source: Digest) -> bool:
    """Return True if ``source`` is of an enabled peer that lets this node have only a part of the kind."""
    chooses = source.part_of and same_endpoint(source.part_of, source.origin)
    return bool(chooses) and Peer.of_endpoint(source.origin) is not None


def note_part(resource: SyncResource, ours: Digest, source: Digest) -> None:
    """Note, under the digest's lock, whether what came from ``source`` makes of ours a part of it, or the whole.

    Only the word of an enabled peer counts: a part is exchanged with the node that chooses it and with no other.
    """
    digests = DigestRow.objects.using(resource.database)
    if chooses_part(source):
        digests.update_or_create(pk=resource.kind, defaults={"part_of": source.part_of})
    elif (
        ours.part_of
        and same_endpoint(ours.part_of, source.origin)
        and not source.part_of
        and Peer.of_endpoint(source.origin) is not None
    ):
        digests.filter(pk=resource.kind).update(part_of="")


def refuse_part(resource: SyncResource, ours: Digest, theirs: Digest) -> None:
    """Refuse to exchange a kind of which one of both has only a part, unless that is the other one's choice.

    Raises:
        FeedRefused
    """
    if ours.part_of and not same_endpoint(ours.part_of, theirs.origin):
        raise FeedRefused(
            f"{resource.endpoint} has only a part of its kind, which {ours.part_of} chooses; it is exchanged with "
            f"that node and with no other. Received a digest of {theirs.origin or 'nobody'}.",
            application_code="HoldsPart",
            payload_path="digest",
        )
    is_theirs = theirs.part_of and not same_endpoint(theirs.part_of, theirs.origin)
    if is_theirs and not same_endpoint(theirs.part_of, resource.endpoint):
        raise FeedRefused(
            f"{theirs.origin} has only a part of its kind, which {theirs.part_of} chooses; it is exchanged with that "
            f"node and with no other.",
            application_code="HoldsPart",
            payload_path="digest",
        )
