"""Store the versions that are left out of feeds to one peer because they are larger than it accepts."""

from django.db import models

from ..turns import TurnModel
from .peer import Peer
from .tracked import TrackedResource


class OversizeVersion(TurnModel):
    """Store one version that is left out of feeds to one peer. All times are in milliseconds since 1970.

    The end of a catch-up feed tells the peer that it contains this version. So the resource gets a new tick as soon as
    the peer accepts its size.
    """

    # No constraint: the rows of a kind and their TrackedResource rows may be in another database than the peers.
    peer = models.ForeignKey(Peer, models.CASCADE, related_name="+", db_constraint=False)
    resource = models.ForeignKey(TrackedResource, models.CASCADE, related_name="oversize_versions")
    endpoint_id = models.BigIntegerField(help_text="The primary key of the endpoint of the version.")
    tick = models.BigIntegerField()
    size_bytes = models.BigIntegerField(help_text="The size of the version's entry in a feed.")
    reason = models.TextField()
    held_since = models.BigIntegerField()
    attempts = models.PositiveIntegerField(default=1)
    retry_at = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["peer", "resource"], name="sdata_sync_one_oversize_version")]

    def __str__(self) -> str:
        return f"{self.resource} at {self.peer}"
