"""Store the uuids of children. A child travels inside its parent and has no sync state of its own."""

from django.db import models

from ..turns import TurnModel


class ChildResource(TurnModel):
    """Store the identity of one child, and the elements of its payload that this node does not know.

    ``kind`` is the kind of the parent and the name of the list, for example ``salesOrders.orderLines``.
    """

    kind = models.CharField(max_length=200)
    uuid = models.UUIDField()
    local_key = models.CharField(max_length=255)
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
