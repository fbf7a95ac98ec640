"""The log: the last change of every resource, wherever it was made."""

from uuid import uuid4

from django.db import models

from .endpoint import Endpoint


class TrackedResource(models.Model):
    """One resource of one kind: its identity, its sync state, and whether it was changed here since.

    A row with ``mark`` set was changed here and has no tick for that change yet; the other columns still tell
    of the change before, if there was one (``tick`` is null if there was none).
    """

    kind = models.CharField(max_length=100)
    uuid = models.UUIDField(default=uuid4)
    local_key = models.CharField(  # noqa: DJ001  null, so that any number of tombstones have none
        max_length=255, null=True, help_text="The primary key of the row here; null where there is no row."
    )

    # The sync state (SData sync 4.3).
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, null=True, related_name="+", db_index=False)
    tick = models.BigIntegerField(null=True)
    stamp = models.BigIntegerField(default=0, help_text="When it was changed, in milliseconds since 1970.")
    user = models.CharField(max_length=150, default="", blank=True)

    # The state under which this node first knew it: a source whose digest contains that has seen the resource.
    first_endpoint = models.ForeignKey(
        Endpoint, models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    first_tick = models.BigIntegerField(null=True)

    # What that change left behind.
    is_deleted = models.BooleanField(default=False)
    is_deferred = models.BooleanField(default=False, help_text="The version waits in a deferred entry.")
    is_incomplete = models.BooleanField(
        default=False, help_text="The row is written, but something that it refers to has not come yet."
    )
    replaced_by = models.UUIDField(
        null=True, blank=True, help_text="The uuid that this resource has now; this one is an alias of it."
    )
    etag = models.CharField(max_length=32, default="", blank=True, help_text="A hash of the row's content.")
    extra = models.TextField(default="", blank=True, help_text="Elements that this node does not know, as XML.")

    # A change that was made here and is not numbered yet.
    mark = models.BigIntegerField(null=True, help_text="When it was made, in milliseconds since 1970.")
    is_intent = models.BooleanField(default=False, help_text="The row was about to be written; nobody said it was.")
    mark_user = models.CharField(max_length=150, default="", blank=True)
    problem = models.TextField(default="", blank=True, help_text="Why the change cannot be numbered.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "uuid"], name="sdata_sync_one_uuid_per_kind"),
            models.UniqueConstraint(fields=["kind", "local_key"], name="sdata_sync_one_key_per_kind"),
        ]
        indexes = [
            models.Index(fields=["kind", "endpoint", "tick"], name="sdata_sync_log"),
            models.Index(fields=["kind", "mark"], name="sdata_sync_marks"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.uuid}"
