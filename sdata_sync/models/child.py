"""The uuids of children, which travel inside their parents and have no sync state of their own."""

from django.db import models


class ChildResource(models.Model):
    """One child: its identity, and what of its payload this node does not know.

    ``kind`` is that of the parent and the name of the list, ``salesOrders.orderLines`` for instance.
    """

    kind = models.CharField(max_length=200)
    uuid = models.UUIDField()
    local_key = models.CharField(max_length=255)
    extra = models.TextField(default="", blank=True, help_text="Elements that this node does not know, as XML.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "uuid"], name="sdata_sync_one_uuid_per_child"),
            models.UniqueConstraint(fields=["kind", "local_key"], name="sdata_sync_one_key_per_child"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.uuid}"
