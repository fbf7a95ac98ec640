"""The settings: one dictionary ``SDATA_SYNC``, typed, read anew at each access."""

from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")


@dataclass(frozen=True)
class Credentials:
    """How to log in at a peer: a user name and password, or a token."""

    username: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "<Credentials, not shown>"


class Settings:
    """Each attribute is the setting of that name in capitals; only ``BASE_URL`` has no default."""

    #: The names that ``SDATA_SYNC`` may have.
    NAMES = (
        "ASK_PEERS_FIRST",
        "BASE_URL",
        "CONFLICT_PRIORITY",
        "CREDENTIALS",
        "DELIVERY",
        "DRAIN_SECONDS",
        "HEARTBEAT",
        "LEASE_SECONDS",
        "MAX_BACKOFF_SECONDS",
        "MAX_BODY_BYTES",
        "MAX_CLOCK_SKEW",
        "MAX_DELIVERIES",
        "MAX_ENDPOINTS",
        "MAX_PAGE_SIZE",
        "MAX_TICK_LEAP",
        "OPERATION_SECONDS",
        "PAGE_SIZE",
        "POLL_SECONDS",
        "TIMEOUT_SECONDS",
    )

    def _get(self, name: str, default: T) -> T:
        value: T = self.raw.get(name, default)
        return value

    @property
    def raw(self) -> dict[str, Any]:
        """The dictionary as it stands in the project's settings; empty if it is not there."""
        value = getattr(settings, "SDATA_SYNC", {})
        return value if isinstance(value, dict) else {}

    @property
    def base_url(self) -> str:
        """This node's dataset URL, without a slash at the end."""
        url = str(self.raw.get("BASE_URL", "")).rstrip("/")
        if not url:
            raise ImproperlyConfigured("SDATA_SYNC['BASE_URL'] must be set to this node's dataset URL.")
        return url

    @property
    def base_path(self) -> str:
        """The path of ``BASE_URL`` as ``django.urls.path`` takes it: no slash at the beginning, one at the end."""
        path = urlsplit(self.base_url).path.strip("/")
        return f"{path}/" if path else ""

    @property
    def ask_peers_first(self) -> bool:
        """Whether a process asks its peers how far they know this node before it numbers its first change."""
        return self._get("ASK_PEERS_FIRST", True)

    @property
    def heartbeat(self) -> float:
        """Seconds between two comparisons with a peer, whether anything was saved or not; 0 for never."""
        return self._get("HEARTBEAT", 60)

    @property
    def conflict_priority(self) -> int:
        """1 to 9, the lower number wins a conflict; a resource may have its own."""
        return self._get("CONFLICT_PRIORITY", 5)

    @property
    def page_size(self) -> int:
        """Entries in one page of a feed."""
        return self._get("PAGE_SIZE", 100)

    @property
    def catch_up_page_size(self) -> int:
        """Entries in a page of a catch-up, where nobody waits for the first of them."""
        return min(5 * self.page_size, max(self.max_page_size, self.page_size))

    @property
    def max_page_size(self) -> int:
        """The most entries that one page of a feed has, whatever ``count`` asks for."""
        return self._get("MAX_PAGE_SIZE", 1000)

    @property
    def max_body_bytes(self) -> int:
        """The largest body that is accepted, unpacked, from a client and from a peer."""
        return self._get("MAX_BODY_BYTES", 8 * 1024 * 1024)

    @property
    def max_clock_skew(self) -> float:
        """Seconds that a stamp from elsewhere may be ahead of our clock before it is said, loudly."""
        return self._get("MAX_CLOCK_SKEW", 60)

    @property
    def delivery(self) -> str:
        """Dotted path of the delivery backend."""
        return self._get("DELIVERY", "sdata_sync.delivery.backends.thread.ThreadDelivery")

    @property
    def timeout_seconds(self) -> float:
        """How long a peer may take to answer."""
        return self._get("TIMEOUT_SECONDS", 30)

    @property
    def operation_seconds(self) -> float:
        """How long a peer may be busy with an asynchronous call, a first selection of all its rows for instance."""
        return self._get("OPERATION_SECONDS", 3600)

    @property
    def max_backoff_seconds(self) -> float:
        """The longest pause between two attempts to reach a peer."""
        return self._get("MAX_BACKOFF_SECONDS", 60)

    @property
    def poll_seconds(self) -> float:
        """How often the delivery looks for changes without having been woken."""
        return self._get("POLL_SECONDS", 30)

    @property
    def lease_seconds(self) -> float:
        """How long the stream of a process that died is kept from others; longer than ``TIMEOUT_SECONDS``."""
        return self._get("LEASE_SECONDS", 90)

    @property
    def max_deliveries(self) -> int:
        """How many peers one process delivers to at a time; each takes a connection with the database meanwhile."""
        return max(int(self._get("MAX_DELIVERIES", 16)), 1)

    @property
    def max_tick_leap(self) -> int:
        """How far above the highest tick that an endpoint has shown itself a claim about it may be."""
        return self._get("MAX_TICK_LEAP", 2**40)

    @property
    def max_endpoints(self) -> int:
        """The most endpoints that a received digest may name, and that the digest of one kind takes over."""
        return self._get("MAX_ENDPOINTS", 10_000)

    @property
    def drain_seconds(self) -> float:
        """How long a process that ends goes on delivering."""
        return self._get("DRAIN_SECONDS", 5)

    def credentials(self, name: str) -> Credentials:
        """Return the credentials called ``name``.

        Raises:
            ImproperlyConfigured: there are none of that name.
        """
        if not name:
            return Credentials()
        known = self.raw.get("CREDENTIALS", {})
        if name not in known:
            raise ImproperlyConfigured(f"SDATA_SYNC['CREDENTIALS'] has no entry {name!r}.")
        return Credentials(**known[name])


conf = Settings()
