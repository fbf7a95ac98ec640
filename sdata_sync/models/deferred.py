"""Store the entries that could not be applied, as they were received."""

from django.db import models

from ..turns import TurnModel
from .peer import Peer
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

    # An entry from a peer that may have only a part of the rows. It is no version of the log: the version of this node
    # stays, and is sent. If the entry is applied later, that is a change of this node.
    is_aside = models.BooleanField(
        default=False, help_text="The entry is kept beside the log; other nodes do not get it."
    )
    peer = models.ForeignKey(
        Peer,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        help_text="The peer with whose rights the entry is retried.",
    )
    login = models.CharField(
        max_length=150, default="", blank=True, help_text="The login or the peer that has brought the entry."
    )
    endpoint_url = models.CharField(
        max_length=500, default="", blank=True, help_text="Of an entry aside: the endpoint of its sync state."
    )
    tick = models.BigIntegerField(null=True, blank=True, help_text="Of an entry aside: the tick of its sync state.")
    stamp = models.BigIntegerField(default=0, help_text="Of an entry aside: its stamp, in milliseconds since 1970.")
    user = models.CharField(max_length=150, default="", blank=True, help_text="Of an entry aside: who made the change.")
    own_etag = models.CharField(
        max_length=32, default="", blank=True, help_text="Of an entry aside: the etag of the row when it was received."
    )
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
        indexes = [models.Index(fields=["login", "is_discarded"], name="sdata_sync_deferred_by_login")]

    def __str__(self) -> str:
        return f"{self.resource}: {self.reason}"
