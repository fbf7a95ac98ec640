"""Versions that one peer does not get, because they are larger than it accepts."""

from django.db import models

from .peer import Peer
from .tracked import TrackedResource


class HeldVersion(models.Model):
    """One version that feeds to one peer leave out. All times are in milliseconds since 1970.

    The end of a catch-up feed tells the peer that it has this version. So the resource gets a new tick when the peer
    has become able to take it.
    """

    # No constraint: the rows of a kind, and what is known of them, may be in another database than the peers.
    peer = models.ForeignKey(Peer, models.CASCADE, related_name="+", db_constraint=False)
    resource = models.ForeignKey(TrackedResource, models.CASCADE, related_name="held_versions")
    endpoint_id = models.BigIntegerField(help_text="The primary key of the endpoint of the version that is held.")
    tick = models.BigIntegerField()
    size_bytes = models.BigIntegerField(help_text="Of its entry in a feed.")
    reason = models.TextField()
    held_since = models.BigIntegerField()
    attempts = models.PositiveIntegerField(default=1)
    retry_at = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["peer", "resource"], name="sdata_sync_one_held_version")]

    def __str__(self) -> str:
        return f"{self.resource} at {self.peer}"
