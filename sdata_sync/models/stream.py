"""Streams: what is delivered to one peer of one kind, in order, by one process at a time."""

import json

from django.db import models

from .peer import Peer


class Stream(models.Model):
    """The delivery of one kind to one peer: how far it is, who does it, how it goes."""

    peer = models.ForeignKey(Peer, models.CASCADE, related_name="streams")
    kind = models.CharField(max_length=100)

    known_digest = models.TextField(
        default="",
        blank=True,
        help_text="The last known ticks of the peer by endpoint, as JSON: the cursor; empty if not known.",
    )

    left_out = models.TextField(
        default="",
        blank=True,
        help_text="Endpoints, one a line in lower case, of which the peer does not believe what our digest says.",
    )

    is_part = models.BooleanField(
        default=False, help_text="The peer was given a part of the kind: its digest promises more than it has."
    )

    # The lease. All times are in milliseconds since 1970, 0 for never.
    holder = models.CharField(max_length=100, default="", blank=True)
    held_until = models.BigIntegerField(default=0)
    wanted = models.BooleanField(default=False, help_text="Somebody could not take the stream and left word.")

    failures = models.PositiveIntegerField(default=0, help_text="In a row.")
    retry_at = models.BigIntegerField(default=0)
    last_success = models.BigIntegerField(default=0)
    last_error = models.TextField(blank=True, default="")
    last_error_at = models.BigIntegerField(default=0)
    compared_at = models.BigIntegerField(default=0, help_text="When our digest was last compared with the peer's.")

    posted_at = models.BigIntegerField(
        default=0, help_text="When its delivery was put into a queue from which nobody has taken it yet."
    )

    # Counted since the beginning, for whoever watches.
    passes = models.BigIntegerField(default=0)
    failed_passes = models.BigIntegerField(default=0)
    delivered = models.BigIntegerField(default=0, help_text="Entries that the peer has taken.")
    busy_millis = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["peer", "kind"], name="sdata_sync_one_stream_per_kind")]

    def __str__(self) -> str:
        return f"{self.kind} to {self.peer}"

    def left_out_endpoints(self) -> frozenset[str]:
        """Return the endpoints, in lower case, of which the peer does not believe what our digest says."""
        return frozenset(self.left_out.split())

    def known_ticks(self) -> dict[str, int] | None:
        """Return the last known ticks of the peer by endpoint, ``None`` if they are not known."""
        ticks: dict[str, int] | None = json.loads(self.known_digest) if self.known_digest else None
        return ticks
