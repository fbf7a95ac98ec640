"""Operations: calls of ``$syncSource`` and ``$syncTarget`` that outlive their request (SData core 11.5)."""

from django.db import models

from .peer import Peer


class Role(models.TextChoices):
    """Which of the two URLs was called."""

    SOURCE = "syncSource"
    TARGET = "syncTarget"


class Phase(models.TextChoices):
    """How far an operation is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Operation(models.Model):
    """One call: what was asked for, how far it is, what came of it. Any process can answer for it.

    All times are in milliseconds since 1970, 0 for never.
    """

    kind = models.CharField(max_length=100)
    role = models.CharField(max_length=20, choices=Role)
    key = models.CharField(max_length=200, help_text="The trackingID in lower case.")
    tracking_id = models.CharField(max_length=200)
    peer = models.ForeignKey(Peer, models.CASCADE, null=True, related_name="+", help_text="Whose user asked.")
    run_name = models.CharField(max_length=200, blank=True, default="")
    run_stamp = models.CharField(max_length=200, blank=True, default="")

    target_digest = models.TextField(blank=True, default="", help_text="Of the caller of $syncSource, as JSON.")
    source_digest = models.TextField(blank=True, default="", help_text="Ours when the changes were selected, as JSON.")
    body = models.BinaryField(null=True, help_text="The feed posted to $syncTarget, until it is applied.")
    result = models.BinaryField(null=True, help_text="The result feed.")
    failure = models.TextField(blank=True, default="", help_text="What is wrong with the whole request, as JSON.")

    phase = models.CharField(max_length=20, choices=Phase, default=Phase.WAITING)
    total = models.BigIntegerField(default=0, help_text="How many entries there are, or rows to look at.")
    done = models.BigIntegerField(default=0)
    created_at = models.BigIntegerField()
    deleted_at = models.BigIntegerField(default=0)

    # Who carries it out; once that time is past without a word, somebody else may.
    holder = models.CharField(max_length=100, default="", blank=True)
    held_until = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "role", "key"], name="sdata_sync_one_operation_per_tracking_id")
        ]
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.kind} ${self.role}('{self.tracking_id}')"

    @property
    def is_ended(self) -> bool:
        """Whether there is an outcome, good or bad."""
        return self.phase in (Phase.DONE, Phase.FAILED)
