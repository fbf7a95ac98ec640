"""Store the entries that could not be applied, as they were received."""

from django.db import models

from ..turns import TurnModel
from .tracked import TrackedResource


class DeletionCondition(TurnModel):
    """Store the digests that this node must contain before the deletions of one page may delete other rows.

    ``origin`` is the endpoint of the source. ``seen`` is JSON: by kind, the source's digest of that kind when it sent
    the deletions, as ticks by endpoint, or null until the source was asked.
    """

    origin = models.CharField(max_length=500)
    seen = models.TextField()

    def __str__(self) -> str:
        return f"deletions from {self.origin}"


class DeferredEntry(TurnModel):
    """Store a version of a resource that this node has received but could not write to its row."""

    resource = models.OneToOneField(TrackedResource, models.CASCADE, related_name="deferred_entry")
    is_deleted = models.BooleanField(default=False)
    payload = models.TextField(blank=True, help_text="The contract's element as it was received.")
    application_code = models.CharField(max_length=40)
    reason = models.TextField()
    payload_path = models.CharField(max_length=300, blank=True)
    received_at = models.DateTimeField()
    is_discarded = models.BooleanField(
        default=False,
        help_text="The entry is not retried. It is still sent to other nodes, and a later version replaces it.",
    )
    attempts = models.PositiveIntegerField(default=1)
    condition = models.ForeignKey(
        DeletionCondition,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="entries",
        help_text="For a deletion that would delete other rows: the condition that it waits for.",
    )

    class Meta:
        verbose_name_plural = "deferred entries"
        ordering = ["-received_at"]

    def __str__(self) -> str:
        return f"{self.resource}: {self.reason}"
