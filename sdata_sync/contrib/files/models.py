"""Store the files that rows name: which are here, and which are still to be fetched."""

from django.db import models

from ...turns import TurnModel


class State(models.TextChoices):
    """Name where the file of a row is."""

    WANTED = "wanted"
    #: In the storage of this node: made here, or fetched for the row.
    HERE = "here"
    #: The storage has a file of that name which was not fetched for the row: it may be the file of another row.
    TAKEN = "name taken"


class RowFile(TurnModel):
    """Store one file that a row names. Times are in milliseconds since 1970."""

    kind = models.CharField(max_length=100)
    uuid = models.UUIDField(help_text="The uuid of the resource whose row, or a child of it, has the path.")
    path = models.TextField(help_text="The name of the file in the storage of its field.")
    path_hash = models.CharField(max_length=32)
    state = models.CharField(max_length=20, choices=State, default=State.WANTED)
    size_bytes = models.BigIntegerField(null=True, help_text="The size at the peer; null before it has answered.")
    received_bytes = models.BigIntegerField(default=0)
    version = models.CharField(
        max_length=200,
        default="",
        blank=True,
        help_text="The ETag of the file at the peer; it differs if the file does.",
    )
    attempts = models.PositiveIntegerField(default=0)
    problem = models.TextField(default="", blank=True, help_text="Why the last attempt did not fetch the file.")
    added_at = models.BigIntegerField()
    held_until = models.BigIntegerField(default=0, help_text="A process fetches the file; after this time another may.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "uuid", "path_hash"], name="sdata_sync_files_one_per_path")
        ]

    def __str__(self) -> str:
        return f"{self.path} of {self.kind}"
