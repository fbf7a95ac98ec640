"""Store the conflicts that this node decided, with both versions."""

from django.db import models

from ..turns import TurnModel
from .tracked import TrackedResource


class ConflictRecord(TurnModel):
    """Store one decision between two concurrent versions of a resource, and which version was kept."""

    resource = models.ForeignKey(TrackedResource, models.CASCADE, related_name="conflicts")
    decided_at = models.DateTimeField(db_index=True)
    remote_won = models.BooleanField()
    rule = models.CharField(max_length=40, help_text="The rule that decided the conflict.")

    # The state and the payload of each version. The payload is the contract's element, empty for a deletion.
    local_endpoint = models.CharField(max_length=500)
    local_stamp = models.BigIntegerField(help_text="Milliseconds since 1970.")
    local_user = models.CharField(max_length=150, blank=True)
    local_payload = models.TextField(blank=True)
    remote_endpoint = models.CharField(max_length=500)
    remote_stamp = models.BigIntegerField(help_text="Milliseconds since 1970.")
    remote_user = models.CharField(max_length=150, blank=True)
    remote_payload = models.TextField(blank=True)

    login = models.CharField(
        max_length=150, default="", blank=True, help_text="The login or the peer that has brought the remote version."
    )

    overruled_at = models.DateTimeField(null=True, blank=True, help_text="When a user chose the other version.")

    class Meta:
        verbose_name = "conflict"
        ordering = ["-decided_at"]
        indexes = [models.Index(fields=["login", "decided_at"], name="sdata_sync_conflicts_by_login")]

    def __str__(self) -> str:
        return f"{self.resource}: the {'remote' if self.remote_won else 'local'} version stayed, by {self.rule}"

    @property
    def losing_payload(self) -> str:
        """Return the payload of the version that was not kept; empty if that version was a deletion."""
        return self.local_payload if self.remote_won else self.remote_payload
