"""The digests of this node's collections."""

from typing import ClassVar

from django.db import models

from .endpoint import Endpoint


class Digest(models.Model):
    """The digest of one kind. Its row is the lock under which ticks are given and feeds are applied."""

    kind = models.CharField(max_length=100, primary_key=True)
    is_complete = models.BooleanField(
        default=False, help_text="All rows from before the app was installed are tracked, not just those saved since."
    )

    part_of = models.CharField(
        max_length=500,
        blank=True,
        default="",
        help_text="The endpoint that lets this node have only a part of the kind; it is exchanged with no other.",
    )

    told_digests = models.TextField(
        blank=True,
        default="",
        help_text="What sources of deletions had of other kinds and this node does not have yet, as JSON: ticks by "
        "kind and endpoint. It is told to others with the deletions.",
    )

    # While this node, restored from a backup, gets back what it lost: the ticks that it may have used a second time.
    behind_since = models.BigIntegerField(null=True, blank=True)
    behind_until = models.BigIntegerField(null=True, blank=True, help_text="Set while lost changes are coming back.")
    rejoined_at = models.DateTimeField(
        null=True, blank=True, help_text="When a peer last knew more of this node than it did itself."
    )
    rejoined_note = models.TextField(blank=True, default="")

    # What became of the entries received, counted since the beginning, for whoever watches.
    applied = models.BigIntegerField(default=0)
    ignored = models.BigIntegerField(default=0, help_text="Known already.")
    lost = models.BigIntegerField(default=0, help_text="Lost a conflict against what stood here.")
    deferred = models.BigIntegerField(default=0)
    conflicts = models.BigIntegerField(default=0, help_text="Whoever won.")

    class Meta:
        ordering = ["kind"]
        # Not the permissions of a table, but of the protocol: what a client may do with a collection.
        permissions = [
            ("read_feeds", "Can read digests and changes over SData"),
            ("push_feeds", "Can push changes over SData"),
            ("set_digest", "Can set digests over SData"),
            ("link_resources", "Can link resources over SData"),
        ]

    def __str__(self) -> str:
        return self.kind


class DigestEntry(models.Model):
    """Everything that ``endpoint`` recorded with a tick below ``tick`` is taken into account here."""

    digest = models.ForeignKey(Digest, models.CASCADE, related_name="entries")
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="+")
    tick = models.BigIntegerField()
    stamp = models.BigIntegerField(null=True, help_text="When the tick last moved, in milliseconds since 1970.")
    conflict_priority = models.IntegerField()
    shown_tick = models.BigIntegerField(
        default=1,
        help_text="The highest tick that the endpoint has shown, in a version or in its own digest. "
        "What others say of it is believed up to MAX_TICK_LEAP above this.",
    )
    heard_tick = models.BigIntegerField(
        default=1, help_text="The tick after the highest one with which a version of the endpoint has come here."
    )
    purge_floor = models.BigIntegerField(
        default=1, help_text="Tombstones of the endpoint with a tick below this may have been purged here."
    )

    class Meta:
        verbose_name_plural = "digest entries"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["digest", "endpoint"], name="sdata_sync_one_entry_per_endpoint")
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.tick}"
