"""Store the endpoints that record changes, by URL."""

from django.db import models

from ..turns import TurnModel
from .columns import KeyField


class Endpoint(TurnModel):
    """Store the URL of one resource collection at one application; the URL is an identity, ignoring case."""

    url = models.CharField(max_length=500, help_text="The URL, spelled as first received.")
    key = KeyField(max_length=500, unique=True, help_text="The URL in lower case.")
    clock_ahead = models.BigIntegerField(
        default=0,
        help_text="How far the last stamp of the endpoint that was too far ahead of this node's clock was ahead, in "
        "milliseconds; 0 if there was none.",
    )
    clock_ahead_at = models.DateTimeField(null=True, blank=True)
    clone_seen_at = models.DateTimeField(
        null=True, blank=True, help_text="When two different changes with the same tick of the endpoint were last seen."
    )
    clone_note = models.TextField(blank=True, default="")

    is_forgotten = models.BooleanField(
        default=False, help_text="Digest entries of the endpoint are ignored until a version of it is received."
    )
    anomaly_at = models.DateTimeField(
        null=True, blank=True, help_text="When a claim in a digest of the endpoint was last ignored as impossible."
    )
    anomaly_note = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["url"]

    def __str__(self) -> str:
        return self.url
