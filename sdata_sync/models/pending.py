"""References to what has not come yet."""

from django.db import models

from .tracked import TrackedResource


class PendingReference(models.Model):
    """One reference of a held version that leads to a resource which is not known here.

    The row is written without it, or, where ``name`` is empty, the whole entry waits.
    """

    resource = models.ForeignKey(TrackedResource, models.CASCADE, related_name="pending_references")
    name = models.CharField(max_length=100, blank=True, help_text="The property of the payload.")
    kind = models.CharField(max_length=100, help_text="Of what is referred to.")
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
