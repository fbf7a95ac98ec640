"""Entries that could not be applied, kept as they came."""

from django.db import models

from .tracked import TrackedResource


class DeletionCondition(models.Model):
    """What the deletions of one received page wait for before they may take other rows along.

    ``origin`` is the endpoint of the source. ``seen`` holds, by kind, the source's digest of that kind when it sent
    the deletions, as JSON: ticks by endpoint, or null while the source has not been asked.
    """

    origin = models.CharField(max_length=500)
    seen = models.TextField()

    def __str__(self) -> str:
        return f"deletions from {self.origin}"


class DeferredEntry(models.Model):
    """The version of a resource that is held here, but could not be written to its row."""

    resource = models.OneToOneField(TrackedResource, models.CASCADE, related_name="deferred_entry")
    is_deleted = models.BooleanField(default=False)
    payload = models.TextField(blank=True, help_text="The contract's element as it came.")
    application_code = models.CharField(max_length=40)
    reason = models.TextField()
    payload_path = models.CharField(max_length=300, blank=True)
    received_at = models.DateTimeField()
    is_discarded = models.BooleanField(
        default=False,
        help_text="Not to be tried again; it is sent on all the same, and a later version replaces it.",
    )
    attempts = models.PositiveIntegerField(default=1)
    condition = models.ForeignKey(
        DeletionCondition,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="entries",
        help_text="Of a deletion that would take other rows along: what it waits for.",
    )

    class Meta:
        verbose_name_plural = "deferred entries"
        ordering = ["-received_at"]

    def __str__(self) -> str:
        return f"{self.resource}: {self.reason}"
