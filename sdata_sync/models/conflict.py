"""Conflicts that were decided here, with both versions."""

from django.db import models

from .tracked import TrackedResource


class ConflictRecord(models.Model):
    """One decision: two versions of a resource, neither made in knowledge of the other, and which of them stayed."""

    resource = models.ForeignKey(TrackedResource, models.CASCADE, related_name="conflicts")
    decided_at = models.DateTimeField(db_index=True)
    remote_won = models.BooleanField()
    rule = models.CharField(max_length=40, help_text="What decided it.")

    # Each version's state and its payload, the contract's element; empty if it was a deletion.
    local_endpoint = models.CharField(max_length=500)
    local_stamp = models.BigIntegerField(help_text="Milliseconds since 1970.")
    local_user = models.CharField(max_length=150, blank=True)
    local_payload = models.TextField(blank=True)
    remote_endpoint = models.CharField(max_length=500)
    remote_stamp = models.BigIntegerField(help_text="Milliseconds since 1970.")
    remote_user = models.CharField(max_length=150, blank=True)
    remote_payload = models.TextField(blank=True)

    overruled_at = models.DateTimeField(null=True, blank=True, help_text="When somebody chose the other version.")

    class Meta:
        verbose_name = "conflict"
        ordering = ["-decided_at"]

    def __str__(self) -> str:
        return f"{self.resource}: the {'remote' if self.remote_won else 'local'} version stayed, by {self.rule}"

    @property
    def losing_payload(self) -> str:
        """The payload of the version that did not stay; empty if that was a deletion."""
        return self.local_payload if self.remote_won else self.remote_payload
