"""Store the digests of this node's collections."""

from typing import ClassVar

from django.db import models

from ..turns import TurnModel
from .endpoint import Endpoint


class Digest(TurnModel):
    """Store the digest of one kind. Ticks are assigned and feeds are applied under the lock of this row."""

    kind = models.CharField(max_length=100, primary_key=True)
    is_complete = models.BooleanField(
        default=False, help_text="Rows from before the app was installed are tracked, not only rows saved since then."
    )

    endpoint_url = models.CharField(
        max_length=500,
        blank=True,
        default="",
        help_text="The URL of this node's endpoint since its first change. It differs from the present one if BASE_URL "
        "was changed; `sync_rejoin --moved` stores the present one.",
    )

    part_of = models.CharField(
        max_length=500,
        blank=True,
        default="",
        help_text="The endpoint that filters this kind for this node, which has a partial replica. The kind is "
        "exchanged with no other endpoint.",
    )

    told_digests = models.TextField(
        blank=True,
        default="",
        help_text="Changes of other kinds that sources of deletions had and this node does not have yet, as JSON: "
        "ticks by kind and endpoint. They are sent to other nodes with the deletions.",
    )

    # Set after a restore from a backup, until the lost changes are back: the ticks that may have been assigned twice.
    gap_since = models.BigIntegerField(null=True, blank=True)
    gap_until = models.BigIntegerField(null=True, blank=True, help_text="Set until the lost changes were pulled.")
    rejoined_at = models.DateTimeField(
        null=True, blank=True, help_text="When a peer last had a higher tick of this node than the node itself."
    )
    rejoined_note = models.TextField(blank=True, default="")

    # The outcomes of received entries, counted since the installation, for monitoring.
    applied = models.BigIntegerField(default=0)
    ignored = models.BigIntegerField(default=0, help_text="Entries that were contained already.")
    lost = models.BigIntegerField(default=0, help_text="Entries that lost a conflict against the version of this node.")
    deferred = models.BigIntegerField(default=0)
    conflicts = models.BigIntegerField(default=0, help_text="All conflicts, won or lost.")

    class Meta:
        ordering = ["kind"]
        # Permissions of the protocol, not of this table: the requests that a client may make to a collection.
        permissions = [
            ("read_feeds", "Can read digests and changes over SData"),
            ("push_feeds", "Can push changes over SData"),
            ("carry_feeds", "Can push changes of other endpoints over SData"),
            ("set_digest", "Can set digests over SData"),
            ("link_resources", "Can link resources over SData"),
        ]

    def __str__(self) -> str:
        return self.kind


class DigestEntry(TurnModel):
    """State that every change of ``endpoint`` with a tick below ``tick`` is taken into account at this node."""

    digest = models.ForeignKey(Digest, models.CASCADE, related_name="entries")
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="+")
    tick = models.BigIntegerField()
    stamp = models.BigIntegerField(null=True, help_text="When the tick last moved, in milliseconds since 1970.")
    conflict_priority = models.IntegerField()
    shown_tick = models.BigIntegerField(
        default=1,
        help_text="The highest tick of the endpoint in a version or in the endpoint's own digest. A higher tick in the "
        "digest of another endpoint is accepted up to MAX_TICK_LEAP above this.",
    )
    received_tick = models.BigIntegerField(
        default=1, help_text="One more than the highest tick of a version that the endpoint has delivered itself."
    )
    delivered_tick = models.BigIntegerField(
        default=1, help_text="The tick below which the endpoint has delivered all its changes itself."
    )
    purge_floor = models.BigIntegerField(
        default=1, help_text="Tombstones of the endpoint with a lower tick may have been purged at this node."
    )

    # The deletions of the endpoint that were applied here within an hour.
    deletions_since = models.BigIntegerField(default=0, help_text="Milliseconds since 1970.")
    deletions = models.IntegerField(default=0)

    class Meta:
        verbose_name_plural = "digest entries"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["digest", "endpoint"], name="sdata_sync_one_entry_per_endpoint")
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.tick}"
