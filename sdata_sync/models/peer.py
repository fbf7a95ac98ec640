"""Store the peers: the remote datasets that this node is kept in sync with."""

from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models

from ..conf import conf
from ..core.text import fold
from ..turns import TurnModel


class Peer(TurnModel):
    """Store a remote dataset, and the settings of the exchange with it."""

    name = models.CharField(max_length=100, unique=True)
    url = models.CharField(
        "dataset URL",
        max_length=400,
        unique=True,
        help_text="http://host/sdata/app/contract/dataset, without a kind.",
    )
    credentials = models.CharField(
        max_length=100,
        blank=True,
        help_text="The name of an entry of the setting CREDENTIALS, which holds the secrets.",
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="The user as which this peer logs in at this node. Required if it gets a partial replica of a kind.",
    )
    immediate = models.BooleanField(
        default=True, help_text="Push changes at once. If not set, the peer only catches up."
    )
    relay = models.BooleanField(
        default=False, help_text="Push the changes of other nodes too, not only the changes of this node."
    )
    filters_us = models.BooleanField(
        "may give a part",
        default=False,
        help_text="This peer may give this node a part of the rows of a kind only. The kind is then exchanged with "
        "this peer and with no other.",
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of_endpoint(cls, url: str) -> "Peer | None":
        """Return the enabled peer whose dataset URL is the parent of the endpoint ``url``, or ``None``."""
        peer = cls.at(url)
        return peer if peer is not None and peer.enabled else None

    @classmethod
    def at(cls, url: str) -> "Peer | None":
        """Return the peer, enabled or not, whose dataset URL is the parent of the endpoint ``url``, or ``None``."""
        dataset = url.rpartition("/")[0]
        found = cls.objects.filter(url__iexact=dataset) if dataset else ()
        # A database may take other characters for equal too.
        return next((peer for peer in found if fold(peer.url) == fold(dataset)), None)

    def endpoint(self, kind: str) -> str:
        """Return the URL of the collection ``kind`` at this peer."""
        return f"{self.url}/{kind}"

    def clean(self) -> None:
        """Validate the URL and the name of the credentials.

        Raises:
            ValidationError: the URL is not a dataset URL, contains a password, is this node's own, or belongs to
                another peer ignoring case; or the setting CREDENTIALS has no entry of that name.
        """
        self.url = self.url.strip().rstrip("/")
        try:
            parts = urlsplit(self.url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        except ValueError:
            is_url = False
        if not is_url:
            raise ValidationError(
                {"url": f"Expected a URL like http://host/sdata/app/contract/-, received {self.url!r}."}
            )
        if parts.username or parts.password:
            raise ValidationError({"url": "Secrets do not belong in the URL; name an entry of CREDENTIALS instead."})
        if fold(self.url) == fold(conf.base_url):
            raise ValidationError({"url": "This is the BASE_URL of this node; a node cannot be its own peer."})
        if Peer.objects.filter(url__iexact=self.url).exclude(pk=self.pk).exists():
            raise ValidationError({"url": "There is a peer with this URL already."})
        try:
            conf.credentials(self.credentials)
        except (ImproperlyConfigured, TypeError) as error:
            raise ValidationError({"credentials": str(error)}) from error
