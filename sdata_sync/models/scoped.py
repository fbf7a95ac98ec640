"""Store the resources of the partial replicas at peers."""

from django.db import models

from ..turns import TurnModel
from .peer import Peer
from .tracked import TrackedResource


class ScopedResource(TurnModel):
    """Store one resource that a peer with a partial replica may have, or had until it was withdrawn there."""

    # No constraint: the rows of a kind and their TrackedResource rows may be in another database than the peers.
    peer = models.ForeignKey(Peer, models.CASCADE, related_name="+", db_constraint=False)
    resource = models.ForeignKey(TrackedResource, models.CASCADE, related_name="scopes")
    is_withdrawn = models.BooleanField(default=False)
    needs_resend = models.BooleanField(
        default=False, help_text="Resend the resource, although the peer's digest contains its last change."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["peer", "resource"], name="sdata_sync_one_scope_per_peer")]

    def __str__(self) -> str:
        return f"{self.resource} at {self.peer}"
