"""Store the references to resources that this node has not received yet."""

from django.db import models

from ..turns import TurnModel
from .tracked import TrackedResource


class PendingReference(TurnModel):
    """Store one reference of a received version to a resource that this node does not know.

    If ``name`` is set, the row was written without that reference. If ``name`` is empty, the entry is deferred until
    the resource is received.
    """

    resource = models.ForeignKey(TrackedResource, models.CASCADE, related_name="pending_references")
    name = models.CharField(
        max_length=100, blank=True, help_text="The property of the payload that holds the reference."
    )
    kind = models.CharField(max_length=100, help_text="The kind of the missing resource.")
    uuid = models.UUIDField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["resource", "name", "kind", "uuid"], name="sdata_sync_one_pending_reference"
            )
        ]
        indexes = [models.Index(fields=["kind", "uuid"], name="sdata_sync_awaited")]

    def __str__(self) -> str:
        return f"{self.resource} waits for {self.kind} {self.uuid}"
