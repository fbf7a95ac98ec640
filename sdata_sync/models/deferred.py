"""Entries that could not be applied, kept as they came."""

from django.db import models

from .tracked import TrackedResource


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

    class Meta:
        verbose_name_plural = "deferred entries"
        ordering = ["-received_at"]

    def __str__(self) -> str:
        return f"{self.resource}: {self.reason}"
