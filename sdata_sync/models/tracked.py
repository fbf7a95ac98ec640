"""Store the log, one row per resource with the sync state of its last change at any node, and the uuids of children."""

from uuid import uuid4

from django.db import models

from ..turns import TurnModel
from .columns import KeyField
from .endpoint import Endpoint

#: Stands for the local key of a resource without a row: a character that XML forbids, so no key that travels has it.
NO_KEY = "\ufffe"


#: Stands for the tick of a resource that has no version of the log, only an entry that is kept aside.
NO_TICK = -1


class TrackedResource(TurnModel):
    """Store the identity and the sync state of one resource, and whether it was changed here since then.

    A row with ``mark`` set was changed at this node and has no tick for that change yet. Its other columns still
    describe the change before; ``tick`` is null if there was none.
    """

    kind = models.CharField(max_length=100)
    uuid = models.UUIDField(default=uuid4)
    local_key = KeyField(  # null, because the unique constraint must allow many tombstones without a key
        max_length=500, null=True, help_text="The primary key of the row at this node; null if there is no row."
    )

    # The sync state (SData sync 4.3).
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, null=True, related_name="+", db_index=False)
    tick = models.BigIntegerField(null=True)
    stamp = models.BigIntegerField(default=0, help_text="The time of the change, in milliseconds since 1970.")
    user = models.CharField(max_length=150, default="", blank=True)

    # The first state that this node had of the resource: a source whose digest contains it has seen the resource.
    first_endpoint_id = models.BigIntegerField(null=True, help_text="The primary key of the endpoint of that state.")
    first_tick = models.BigIntegerField(null=True)

    # The status of the version after that change. ``sync.content.deferred`` alone writes ``is_deferred``, and
    # ``sync.content.pending`` alone writes ``is_incomplete``.
    is_deleted = models.BooleanField(default=False)
    is_deferred = models.BooleanField(
        default=False, help_text="The version was not written to the row; it is in a deferred entry."
    )
    is_incomplete = models.BooleanField(
        default=False, help_text="The row is written, but a resource that it refers to has not been received yet."
    )
    replaced_by = models.UUIDField(
        null=True, blank=True, help_text="The present uuid of this resource; the uuid of this row is an alias of it."
    )
    etag = models.CharField(max_length=32, default="", blank=True, help_text="A hash of the content of the row.")
    extra = models.TextField(
        default="", blank=True, help_text="Received elements that this node does not know, as XML."
    )

    # A row that was linked to the uuid of a peer's row, until the peer's version arrives. It has no sync state.
    awaited_endpoint = models.ForeignKey(
        Endpoint,
        models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
        help_text="The endpoint whose version of this resource is awaited. No tick is assigned before it arrives.",
    )
    keeps_content = models.BooleanField(
        default=False, help_text="The row keeps its content when the awaited version arrives."
    )

    # A change that was made at this node and has no tick yet.
    mark = models.BigIntegerField(null=True, help_text="The time of the change, in milliseconds since 1970.")
    is_intent = models.BooleanField(
        default=False, help_text="The row was about to be written; the write is not confirmed."
    )
    mark_user = models.CharField(max_length=150, default="", blank=True)
    restamp = models.BooleanField(
        default=False, help_text="Assign a new tick to the mark, although the content of the row may be the same."
    )
    problem = models.TextField(default="", blank=True, help_text="Why no tick can be assigned to the change.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "uuid"], name="sdata_sync_one_uuid_per_kind"),
            models.UniqueConstraint(fields=["kind", "local_key"], name="sdata_sync_one_key_per_kind"),
        ]
        indexes = [
            models.Index(fields=["kind", "endpoint", "tick"], name="sdata_sync_log"),
            models.Index(fields=["kind", "mark"], name="sdata_sync_marks"),
        ]

    @property
    def row_key(self) -> str:
        """Return the local key, or ``NO_KEY`` for a resource without a row; the empty text is a key."""
        return NO_KEY if self.local_key is None else self.local_key

    def __str__(self) -> str:
        return f"{self.kind} {self.uuid}"


class ChildResource(TurnModel):
    """Store the identity of one child, and the elements of its payload that this node does not know.

    A child travels inside its parent and has no sync state of its own.

    ``kind`` is the kind of the parent and the name of the list, for example ``salesOrders.orderLines``.
    """

    kind = models.CharField(max_length=200)
    uuid = models.UUIDField()
    local_key = KeyField(max_length=500)
    extra = models.TextField(
        default="", blank=True, help_text="Received elements that this node does not know, as XML."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "uuid"], name="sdata_sync_one_uuid_per_child"),
            models.UniqueConstraint(fields=["kind", "local_key"], name="sdata_sync_one_key_per_child"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.uuid}"
