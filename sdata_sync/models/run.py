"""Runs: what other nodes reported of the changes that they had from us (SData sync 5.7)."""

from django.db import models


class Run(models.Model):
    """One run of an engine that reported results of one kind from one target."""

    kind = models.CharField(max_length=100)
    name = models.CharField(max_length=200, blank=True, default="")
    stamp = models.CharField(max_length=200, blank=True, default="", help_text="As it was said, a date or not.")
    target = models.CharField(max_length=500, blank=True, default="", help_text="The endpoint that applied them.")
    reported_at = models.DateTimeField(help_text="When the last results came.")
    applied = models.PositiveBigIntegerField(default=0, help_text="Entries that were simply taken.")
    exceptions = models.PositiveBigIntegerField(default=0, help_text="Entries that were not; each is kept.")

    class Meta:
        ordering = ["-reported_at"]
        indexes = [models.Index(fields=["kind", "name", "stamp"], name="sdata_sync_runs")]

    def __str__(self) -> str:
        return f"{self.kind}: {self.name or 'a run'} {self.stamp}".strip()


class RunResult(models.Model):
    """What became of one entry that was not simply taken: a conflict that it lost, an entry that waits."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="results")
    uuid = models.UUIDField(null=True, db_index=True, help_text="Of the resource, if the target said which.")
    status = models.PositiveSmallIntegerField("HTTP status")
    message = models.CharField(max_length=200, blank=True, default="")
    diagnosis = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return f"{self.uuid}: {self.status} {self.message}"
