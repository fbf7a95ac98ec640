"""Declare the settings: one dictionary ``SDATA_SYNC``, typed, checked at the first access.

Each setting is declared once, as a `Setting` in the class `Settings`. Three things are made from the declarations:
the typed attributes of ``conf``, the system checks in ``checks``, and the table in ``docs/reference/settings.md``
(rewrite it with ``python -m docs.settings_table`` after a change of a declaration).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Generic, TypeVar, overload
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

T = TypeVar("T")

#: The highest value of a whole number: the databases store 64 bits.
MAX_INTEGER = 2**63 - 1
#: The highest number of seconds, 100 years: its milliseconds fit into every column and every timeout.
MAX_SECONDS = 100 * 366 * 24 * 3600
#: `Settings.base_path` while ``BASE_URL`` is missing or wrong: system checks import the URLconf, which must not fail.
PATH_WITHOUT_BASE_URL = "sdata-sync-without-base-url/"

BASE_URL_FORM = "a dataset URL like https://shop.example.com/sdata/shop/myContract/-"
CREDENTIALS_FORM = "a dict of entries by name"
ENTRY_FORM = "a dict with a username and a password, or with a token"
#: The sets of keys that an entry of ``CREDENTIALS`` may have.
CREDENTIAL_KEYS = ({"username", "password"}, {"token"})
#: The number of characters of a key or of a URL that a message shows.
MAX_SHOWN = 100
#: Messages show numbers up to this one.
MAX_SHOWN_NUMBER = 10**30


@dataclass(frozen=True)
class Credentials:
    """Hold a user name and a password, or a token, for requests to one peer."""

    username: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "<Credentials, not shown>"


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting(Generic[T]):
    """Declare one entry of ``SDATA_SYNC``; as an attribute of `Settings`, read its value.

    Attributes:
        name: the key in ``SDATA_SYNC``.
        types: the types of a right value; ``bool`` counts as ``int`` nowhere.
        default: the value where ``SDATA_SYNC`` has no entry of this name.
        help: what the setting does, as the reference states it (Markdown).
        page: the page below ``docs`` that explains the setting, without ``.md``.
        is_required: True if the setting has no default.
        form: the description of a right value, for settings that are not numbers.
        unit: the unit of a number.
        minimum: the lowest number that is allowed.
        above: the number that a right value exceeds.
        maximum: the highest number that is allowed; without it, `MAX_SECONDS` or `MAX_INTEGER`.
        check: yields what is wrong with a value, in sentences that begin with the first argument; replaces the check
            of the type and of the bounds.
        error_id: the id of the system check error for a wrong value.
        former_names: keys that earlier releases used, and that this release still reads.
        attribute: the name of the attribute of `Settings` that has this declaration.
    """

    name: str
    types: tuple[type, ...]
    default: T
    help: str
    page: str = ""
    is_required: bool = False
    form: str = ""
    unit: str = ""
    minimum: int | None = None
    above: int | None = None
    maximum: int | None = None
    check: Callable[[str, object], Iterator[str]] | None = None
    error_id: str = "sdata_sync.E004"
    former_names: tuple[str, ...] = ()
    attribute: str = field(default="", init=False)

    @overload
    def __get__(self, instance: None, owner: type[Settings]) -> Setting[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type[Settings]) -> T: ...
    def __get__(self, instance: Settings | None, owner: type[Settings]) -> Setting[T] | T:
        """Return the declaration for the class, and the value for the instance.

        The value is kept in the instance until ``SDATA_SYNC`` is replaced, so that it is checked once.

        Raises:
            ImproperlyConfigured: if ``SDATA_SYNC`` has a wrong value for this setting.
        """
        if instance is None:
            return self
        value = self.read(instance.raw)
        vars(instance)[self.attribute] = value
        return value

    def __set_name__(self, owner: type[Settings], name: str) -> None:
        """Note the attribute that has this declaration."""
        object.__setattr__(self, "attribute", name)

    def read(self, raw: Mapping[str, Any]) -> T:
        """Return the value in ``raw`` under the present name, else under a former name, else the default.

        Raises:
            ImproperlyConfigured: if the value is wrong.
        """
        for name in (self.name, *self.former_names):
            if name in raw:
                value: T = raw[name]
                for problem in self.problems(value, name):
                    raise ImproperlyConfigured(problem)
                return value
        return self.default

    def problems(self, value: object, name: str = "") -> Iterator[str]:
        """Yield one sentence for each thing that is wrong with ``value``; no sentence contains a secret.

        ``name`` is the key that the value was found under, if that is a former name.
        """
        where = f"SDATA_SYNC[{name or self.name!r}]"
        if self.check is not None:
            yield from self.check(where, value)
        elif not isinstance(value, self.types) or (isinstance(value, bool) and bool not in self.types):
            yield f"{where} must be {self.expected}, not {shown(value)}."
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from self._problems_of_number(where, value)

    def _problems_of_number(self, where: str, value: float) -> Iterator[str]:
        # Comparisons with NaN are false, and an int may be too large for a float: the order of these conditions counts.
        is_finite = isinstance(value, int) or math.isfinite(value)
        is_low = (self.minimum is not None and value < self.minimum) or (self.above is not None and value <= self.above)
        highest = MAX_SECONDS if float in self.types else MAX_INTEGER
        if not is_finite or is_low or (self.maximum is not None and value > self.maximum):
            yield f"{where} must be {self.expected}, not {shown(value)}."
        elif value > highest:
            yield f"{where} must be {self.expected}, and at most {highest}, not {shown(value)}."

    @property
    def expected(self) -> str:
        """The description of a right value: "a number of seconds, 0 or more"."""
        if self.form:
            return self.form
        noun = "a number" if float in self.types else "a whole number"
        noun += f" of {self.unit}" if self.unit else ""
        if self.maximum is not None:
            return f"{noun} from {self.minimum} to {self.maximum}"
        return f"{noun} above {self.above}" if self.above is not None else f"{noun}, {self.minimum} or more"


def shown(value: object) -> str:
    """Describe a wrong value for a message: numbers in full, of other values the type only, which may be secrets."""
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return str(int(value)) if abs(value) < MAX_SHOWN_NUMBER else "a number of more than 30 digits"
    if isinstance(value, str):
        return f"the string {value!r}" if _is_number(value) else "a string" if value else "an empty string"
    return f"a value of type {type(value).__name__}"


def shown_name(name: object) -> str:
    """Quote a key of a dictionary for a message; cut it off after `MAX_SHOWN` characters."""
    if not isinstance(name, str):
        return shown(name)
    return repr(name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}…")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return len(text) <= MAX_SHOWN


def _shown_url(url: str) -> str:
    """Quote a URL without what may be secret: a user name and password, a query, a fragment."""
    if "@" in url:
        return "a URL with a user name or a password"
    start, separator, _ = url.replace("#", "?").partition("?")
    return shown_name(start) + (", followed by a query or a fragment" if separator else "")


def _check_base_url(where: str, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} must be {BASE_URL_FORM}, not {shown(value)}."
    elif not _is_dataset_url(value):
        yield f"{where} must be {BASE_URL_FORM}, not {_shown_url(value)}."


@lru_cache(maxsize=64)
def _is_dataset_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0  # reading it raises ValueError if it is no number
            and bool(parts.path.strip("/"))
            and not (parts.query or parts.fragment or parts.username or parts.password)
            and not any(character in "$<>" or character.isspace() for character in url)
        )
    except ValueError:
        return False


def _check_credentials(where: str, value: object) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} must be {CREDENTIALS_FORM}, not {_type_of(value)}."
        return
    for name, entry in value.items():
        if isinstance(name, str) and name:
            yield from _check_entry(f"{where}[{shown_name(name)}]", entry)
        else:
            yield f"The names of the entries of {where} must be strings that are not empty, not {_type_of(name)}."


def _check_entry(where: str, entry: object) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"{where} must be {ENTRY_FORM}, not {_type_of(entry)}."
        return
    if set(entry) not in CREDENTIAL_KEYS:
        yield f"{where} must be {ENTRY_FORM}, not {_keys_of(entry)}."
    for key in ("username", "password", "token"):
        value = entry.get(key, "absent")
        if not isinstance(value, str) or not value:
            yield f"{where}[{key!r}] must be a string that is not empty, not {_type_of(value)}."


def _keys_of(entry: dict[object, object]) -> str:
    """Describe the keys of an entry; an unknown key is counted only, for it may be a misplaced secret."""
    known = [repr(key) for key in ("username", "password", "token") if key in entry]
    unknown = len(entry) - len(known)
    keys = [*known, f"{unknown} unknown"] if unknown else known
    return f"a dict with the keys {' and '.join(keys)}" if keys else "an empty dict"


def _type_of(value: object) -> str:
    """Describe a value that may be a secret: its type only."""
    if value is None:
        return "None"
    return "an empty string" if isinstance(value, str) and not value else f"a value of type {type(value).__name__}"


class Settings:
    """Read ``SDATA_SYNC``: each attribute is the setting of that name in capitals."""

    _base_url = Setting[str](
        name="BASE_URL",
        types=(str,),
        default="",
        is_required=True,
        form=BASE_URL_FORM,
        check=_check_base_url,
        error_id="sdata_sync.E002",
        help="The dataset URL of this node. It is the identity of the node; no request changes it.",
    )
    conflict_priority = Setting[int](
        name="CONFLICT_PRIORITY",
        types=(int,),
        default=5,
        minimum=1,
        maximum=9,
        error_id="sdata_sync.E003",
        help="The priority of this node in conflicts. The lower number wins. A resource may have its own priority.",
    )
    _credentials = Setting[dict[str, dict[str, str]]](
        name="CREDENTIALS",
        types=(dict,),
        default={},
        form=CREDENTIALS_FORM,
        check=_check_credentials,
        error_id="sdata_sync.E005",
        help='The logins at peers: `{name: {"username": …, "password": …}}` or `{name: {"token": …}}`.',
    )
    delivery = Setting[str](
        name="DELIVERY",
        types=(str,),
        default="sdata_sync.delivery.backends.thread.ThreadDelivery",
        form="the dotted path of a delivery backend",
        error_id="sdata_sync.E006",
        help="The delivery backend.",
        page="how-to/choose-who-delivers",
    )
    page_size = Setting[int](
        name="PAGE_SIZE",
        types=(int,),
        default=100,
        unit="entries",
        minimum=1,
        help="The size of one page of a feed. A peer that answers 413 gets smaller pages.",
    )
    max_page_size = Setting[int](
        name="MAX_PAGE_SIZE",
        types=(int,),
        default=1000,
        unit="entries",
        minimum=1,
        help="The largest page of a feed that this node sends, for any `count` in the request. "
        "A catch-up of this node requests pages of 5 times `PAGE_SIZE`, or of this size if it is smaller.",
    )
    max_body_bytes = Setting[int](
        name="MAX_BODY_BYTES",
        types=(int,),
        default=8 * 1024 * 1024,
        unit="bytes",
        minimum=1,
        help="The largest body that this node accepts from a client or from a peer, measured after decompression.",
    )
    max_file_bytes = Setting[int](
        name="MAX_FILE_BYTES",
        types=(int,),
        default=256 * 1024 * 1024,
        unit="bytes",
        minimum=1,
        help="The largest file that `sdata_sync.contrib.files` fetches from a peer.",
    )
    max_clock_skew_seconds = Setting[float](
        name="MAX_CLOCK_SKEW_SECONDS",
        types=(int, float),
        default=60,
        unit="seconds",
        minimum=0,
        help="How far a received stamp may be ahead of the clock of this node. "
        "This node logs a warning for a stamp that is further ahead.",
        former_names=("MAX_CLOCK_SKEW",),
    )
    max_stamp_ahead_seconds = Setting[float](
        name="MAX_STAMP_AHEAD_SECONDS",
        types=(int, float),
        default=24 * 60 * 60,
        unit="seconds",
        above=0,
        help="How far the stamp of a received version may be ahead of the clock of this node. "
        "A version that is further ahead is deferred, and loses conflicts that the stamps decide.",
    )
    timeout_seconds = Setting[float](
        name="TIMEOUT_SECONDS",
        types=(int, float),
        default=30,
        unit="seconds",
        above=0,
        help="How long a peer may take to answer a request.",
    )
    operation_seconds = Setting[float](
        name="OPERATION_SECONDS",
        types=(int, float),
        default=3600,
        unit="seconds",
        above=0,
        help="How long a peer may take for an asynchronous operation, for example the first selection of all its rows.",
    )
    max_backoff_seconds = Setting[float](
        name="MAX_BACKOFF_SECONDS",
        types=(int, float),
        default=60,
        unit="seconds",
        above=0,
        help="The longest pause between two attempts to reach a peer.",
    )
    max_deliveries = Setting[int](
        name="MAX_DELIVERIES",
        types=(int,),
        default=16,
        unit="peers",
        minimum=1,
        help="How many peers one process delivers to at the same time. Each delivery uses one database connection. "
        "Peers whose deliveries fail share a quarter of this number.",
    )
    lease_seconds = Setting[float](
        name="LEASE_SECONDS",
        types=(int, float),
        default=90,
        unit="seconds",
        above=0,
        help="How long other processes wait for the stream of a process that died on another host. "
        "It must be longer than `TIMEOUT_SECONDS`.",
    )
    poll_seconds = Setting[float](
        name="POLL_SECONDS",
        types=(int, float),
        default=30,
        unit="seconds",
        above=0,
        help="The interval at which the delivery looks for changes without a notification.",
    )
    heartbeat_seconds = Setting[float](
        name="HEARTBEAT_SECONDS",
        types=(int, float),
        default=60,
        unit="seconds",
        minimum=0,
        help="The interval at which this node compares digests with each peer that it pushes to. 0 means never.",
        former_names=("HEARTBEAT",),
    )
    ask_peers_first = Setting[bool](
        name="ASK_PEERS_FIRST",
        types=(bool,),
        default=True,
        form="True or False",
        error_id="sdata_sync.E007",
        help="True if a process reads the digests of its peers (network) before it assigns the first tick.",
    )
    max_tick_leap = Setting[int](
        name="MAX_TICK_LEAP",
        types=(int,),
        default=2**40,
        unit="ticks",
        minimum=1,
        help="How far a claim about an endpoint may be above the highest tick that the endpoint itself has shown.",
        page="how-to/false-claims",
    )
    max_endpoints = Setting[int](
        name="MAX_ENDPOINTS",
        types=(int,),
        default=10_000,
        unit="endpoints",
        minimum=1,
        help="The most other endpoints that a received digest may name, and that the stored digest of a kind holds.",
    )
    max_deletions = Setting[int](
        name="MAX_DELETIONS",
        types=(int,),
        default=1000,
        unit="rows",
        minimum=1,
        help="The most rows of a kind that one peer may delete within an hour. "
        "Further deletions wait for a confirmation.",
    )
    max_deletion_percent = Setting[int](
        name="MAX_DELETION_PERCENT",
        types=(int,),
        default=20,
        unit="percent",
        minimum=1,
        help="The same as a part of the rows of the kind. It counts above 10 deletions.",
    )
    max_waiting = Setting[int](
        name="MAX_WAITING",
        types=(int,),
        default=10_000,
        unit="entries",
        minimum=1,
        help="The most deferred entries that one login or peer may leave here, and the most conflicts within a day. "
        "A page that would leave more is answered with 429.",
    )
    keep_conflicts_days = Setting[int](
        name="KEEP_CONFLICTS_DAYS",
        types=(int,),
        default=36_500,
        unit="days",
        minimum=1,
        help="How long decided conflicts are kept. `sync_purge` deletes older ones.",
    )
    max_requests_per_minute = Setting[int](
        name="MAX_REQUESTS_PER_MINUTE",
        types=(int,),
        default=30_000,
        unit="requests",
        minimum=1,
        help="The most requests of one login within a minute, counted in Django's default cache. "
        "Further ones are answered with 429.",
    )
    max_operations = Setting[int](
        name="MAX_OPERATIONS",
        types=(int,),
        default=100,
        unit="operations",
        minimum=1,
        help="The most calls of `$syncSource` and `$syncTarget` with a trackingID that one login may have running. "
        "Further ones are answered with 429.",
    )
    drain_seconds = Setting[float](
        name="DRAIN_SECONDS",
        types=(int, float),
        default=5,
        unit="seconds",
        minimum=0,
        help="How long a process that ends continues to deliver.",
    )

    #: Every setting, in the order of the reference.
    TABLE: ClassVar[tuple[Setting[Any], ...]] = tuple(
        declared for declared in list(locals().values()) if isinstance(declared, Setting)
    )
    #: The names that ``SDATA_SYNC`` may have, without the former names.
    NAMES: ClassVar[tuple[str, ...]] = tuple(sorted(setting.name for setting in TABLE))

    @property
    def raw(self) -> dict[str, Any]:
        """The dictionary in the project's settings; empty if ``SDATA_SYNC`` is missing or not a dict."""
        value = getattr(settings, "SDATA_SYNC", {})
        return value if isinstance(value, dict) else {}

    @cached_property
    def base_url(self) -> str:
        """The dataset URL of this node, without a slash at the end.

        Raises:
            ImproperlyConfigured: if ``BASE_URL`` is missing or empty, or is not a dataset URL.
        """
        if not self.raw.get("BASE_URL"):
            raise ImproperlyConfigured("SDATA_SYNC['BASE_URL'] must be set to this node's dataset URL.")
        return self._base_url.rstrip("/")

    @cached_property
    def base_path(self) -> str:
        """The path of ``BASE_URL`` for ``django.urls.path``: no slash at the beginning, one at the end.

        `PATH_WITHOUT_BASE_URL` if ``BASE_URL`` is missing or wrong, so that the URLconf can be imported and the system
        checks can report the error.
        """
        try:
            return f"{urlsplit(self.base_url).path.strip('/')}/"
        except ImproperlyConfigured:
            return PATH_WITHOUT_BASE_URL

    @cached_property
    def catch_up_page_size(self) -> int:
        """The number of entries in one page of a catch-up: larger pages, because no request waits for the first one."""
        return min(5 * self.page_size, max(self.max_page_size, self.page_size))

    def credentials(self, name: str) -> Credentials:
        """Return the entry ``name`` of ``CREDENTIALS``; empty credentials if ``name`` is empty.

        Raises:
            ImproperlyConfigured: if ``CREDENTIALS`` is not a dict, has no entry of this name, or the entry is wrong.
        """
        if not name:
            return Credentials()
        entries: object = self.raw.get("CREDENTIALS", {})
        if not isinstance(entries, dict):
            raise ImproperlyConfigured(next(_check_credentials("SDATA_SYNC['CREDENTIALS']", entries)))
        if name not in entries:
            raise ImproperlyConfigured(f"SDATA_SYNC['CREDENTIALS'] has no entry {name!r}.")
        for problem in _check_entry(f"SDATA_SYNC['CREDENTIALS'][{name!r}]", entries[name]):
            raise ImproperlyConfigured(problem)
        return Credentials(**entries[name])


conf = Settings()


@receiver(setting_changed)
def _forget_values(*, setting: str, **_: Any) -> None:
    """Read the settings again after a test has replaced ``SDATA_SYNC``."""
    if setting == "SDATA_SYNC":
        vars(conf).clear()
