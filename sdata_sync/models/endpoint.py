"""Endpoints: whoever records changes, by URL."""

from django.db import models


class Endpoint(models.Model):
    """The URL of one resource collection at one application; an identity, the same whatever its case."""

    url = models.CharField(max_length=500, help_text="As it was spelled when it was first seen.")
    key = models.CharField(max_length=500, unique=True, help_text="The URL in lower case.")
    clock_ahead = models.BigIntegerField(
        default=0,
        help_text="By how many milliseconds a stamp from there was last ahead of our clock; 0 if it was not.",
    )
    clock_ahead_at = models.DateTimeField(null=True, blank=True)
    clone_seen_at = models.DateTimeField(
        null=True, blank=True, help_text="When one tick of it was last seen with two different changes."
    )
    clone_note = models.TextField(blank=True, default="")

    is_forgotten = models.BooleanField(
        default=False, help_text="What digests say of it is ignored until a version of its comes."
    )
    anomaly_at = models.DateTimeField(
        null=True, blank=True, help_text="When a claim that came from it was last left out because it cannot be true."
    )
    anomaly_note = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["url"]

    def __str__(self) -> str:
        return self.url
