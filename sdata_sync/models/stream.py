"""Store streams: the ordered delivery of one kind to one peer, by one process at a time."""

import json

from django.db import models

from ..turns import TurnModel
from .peer import Peer


class Stream(TurnModel):
    """Store the cursor, the lease and the statistics of the delivery of one kind to one peer."""

    peer = models.ForeignKey(Peer, models.CASCADE, related_name="streams")
    kind = models.CharField(max_length=100)

    known_digest = models.TextField(
        default="",
        blank=True,
        help_text="The cursor: the last known digest of the peer as JSON, ticks by endpoint. Empty if not known.",
    )

    left_out = models.TextField(
        default="",
        blank=True,
        help_text="Endpoints for which the peer does not accept the ticks of this node's digest, one per line, in "
        "lower case.",
    )

    is_shared = models.BooleanField(
        null=True, help_text="Whether the peer has this kind; not known before it has answered."
    )

    is_partial = models.BooleanField(
        default=False,
        help_text="The peer was sent a partial replica: its digest contains changes that it does not have.",
    )

    # The lease: the process that delivers, and the end of its turn. Times are in milliseconds since 1970; 0 is never.
    holder = models.CharField(max_length=100, default="", blank=True)
    held_until = models.BigIntegerField(default=0)
    wanted = models.BooleanField(
        default=False,
        help_text="Another process asked for a delivery while the lease was held. The holder checks again before it "
        "releases the lease.",
    )

    failures = models.PositiveIntegerField(default=0, help_text="The number of consecutive failures.")
    retry_at = models.BigIntegerField(default=0)
    last_success = models.BigIntegerField(default=0)
    last_error = models.TextField(blank=True, default="")
    last_error_at = models.BigIntegerField(default=0)
    compared_at = models.BigIntegerField(default=0, help_text="When the digests of both nodes were last compared.")

    posted_at = models.BigIntegerField(
        default=0, help_text="When the delivery was put into a task queue; 0 after a worker has taken it."
    )

    waiting = models.PositiveIntegerField(
        default=0, help_text="The number of entries that the peer has deferred or refused, as it last told."
    )
    waiting_uuids = models.TextField(default="", blank=True, help_text="The uuids of some of them.")
    waiting_at = models.BigIntegerField(default=0)

    # Counted since the installation, for monitoring.
    passes = models.BigIntegerField(default=0)
    failed_passes = models.BigIntegerField(default=0)
    delivered = models.BigIntegerField(default=0, help_text="The number of entries that the peer has accepted.")
    busy_millis = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["peer", "kind"], name="sdata_sync_one_stream_per_kind")]

    def __str__(self) -> str:
        return f"{self.kind} to {self.peer}"

    def left_out_endpoints(self) -> frozenset[str]:
        """Return the endpoints for which the peer does not accept the ticks of this node's digest, in lower case."""
        return frozenset(self.left_out.split())

    def known_ticks(self) -> dict[str, int] | None:
        """Return the ticks of the peer's last known digest by endpoint, or ``None`` if it is not known."""
        ticks: dict[str, int] | None = json.loads(self.known_digest) if self.known_digest else None
        return ticks
