"""Store runs: the results that other nodes reported for changes of this node (SData sync 5.7)."""

from django.db import models

from ..turns import TurnModel


class Run(TurnModel):
    """Store one run of an engine that reported results of one kind from one target."""

    kind = models.CharField(max_length=100)
    name = models.CharField(max_length=200, blank=True, default="")
    stamp = models.CharField(
        max_length=200, blank=True, default="", help_text="The runStamp as it was received; it need not be a date."
    )
    target = models.CharField(
        max_length=500, blank=True, default="", help_text="The endpoint that applied the changes."
    )
    reported_at = models.DateTimeField(help_text="When the last results were received.")
    applied = models.PositiveBigIntegerField(
        default=0, help_text="The number of entries that the target applied or already contained."
    )
    exceptions = models.PositiveBigIntegerField(
        default=0, help_text="The number of all other entries; each has a RunResult."
    )

    class Meta:
        ordering = ["-reported_at"]
        indexes = [models.Index(fields=["kind", "name", "stamp"], name="sdata_sync_runs")]

    def __str__(self) -> str:
        return f"{self.kind}: {self.name or 'a run'} {self.stamp}".strip()


class RunResult(TurnModel):
    """Store the reported result of one entry that was not applied, for example a lost conflict."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="results")
    uuid = models.UUIDField(
        null=True, db_index=True, help_text="The uuid of the resource; null if the target did not report it."
    )
    status = models.PositiveSmallIntegerField("HTTP status")
    message = models.CharField(max_length=200, blank=True, default="")
    diagnosis = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return f"{self.uuid}: {self.status} {self.message}"
