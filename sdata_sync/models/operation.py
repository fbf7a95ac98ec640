"""Store operations: calls of ``$syncSource`` and ``$syncTarget`` that outlive their request (SData core 11.5)."""

from django.db import models

from ..turns import TurnModel
from .columns import KeyField
from .peer import Peer


class Role(models.TextChoices):
    """Name the URL that was called."""

    SOURCE = "syncSource"
    TARGET = "syncTarget"


class Phase(models.TextChoices):
    """Name the phases of an operation."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Operation(TurnModel):
    """Store the parameters, the progress and the outcome of one call, so that any process can answer for it.

    All times are in milliseconds since 1970; 0 means never.
    """

    kind = models.CharField(max_length=100)
    role = models.CharField(max_length=20, choices=Role)
    key = KeyField(max_length=200, help_text="The trackingID in lower case.")
    tracking_id = models.CharField(max_length=200)
    login = KeyField(
        max_length=100, default="", blank=True, help_text="The primary key of the user who made the request, as text."
    )
    peer = models.ForeignKey(
        Peer, models.CASCADE, null=True, related_name="+", help_text="The peer whose user made the request."
    )
    run_name = models.CharField(max_length=200, blank=True, default="")
    run_stamp = models.CharField(max_length=200, blank=True, default="")

    target_digest = models.TextField(
        blank=True, default="", help_text="The digest that the caller of $syncSource posted, as JSON."
    )
    source_digest = models.TextField(
        blank=True, default="", help_text="The digest of this node when the changes were selected, as JSON."
    )
    body = models.BinaryField(null=True, help_text="The feed posted to $syncTarget, until it is applied.")
    result = models.BinaryField(null=True, help_text="The result feed.")
    failure = models.TextField(blank=True, default="", help_text="The error of a failed operation, as JSON.")

    phase = models.CharField(max_length=20, choices=Phase, default=Phase.WAITING)
    total = models.BigIntegerField(default=0, help_text="The number of entries or rows to process.")
    done = models.BigIntegerField(default=0)
    created_at = models.BigIntegerField()
    deleted_at = models.BigIntegerField(default=0)

    # The lease: the process that executes the operation. After held_until, in milliseconds, another process may.
    holder = models.CharField(max_length=100, default="", blank=True)
    held_until = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "role", "key", "login"], name="sdata_sync_one_operation_per_login")
        ]
        indexes = [models.Index(fields=["login", "created_at"], name="sdata_sync_open_operations")]
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.kind} ${self.role}('{self.tracking_id}')"

    @property
    def is_ended(self) -> bool:
        """Return True if the operation has succeeded or failed."""
        return self.phase in (Phase.DONE, Phase.FAILED)
