"""Load, lock and save the digest of a kind."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, NamedTuple

from django.db import connections

from ...core.digest import Digest, DigestEntry
from ...core.state import FIRST_TICK
from ...core.text import fold
from ...models import Digest as DigestRow
from ...models import DigestEntry as DigestEntryRow
from ...models import Endpoint, Peer
from ..db.prepared import PreparedQuery, PreparedUpdate
from ..db.statements import chunks, locks_rows

if TYPE_CHECKING:
    from ...atom.payload import Text
    from ...kind import Kind

#: The maximum number of rows in one statement.
BATCH = 500
#: Up to this number, new endpoints are inserted one by one.
FEW = 2

logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    pk: int
    endpoint_id: int
    url: str
    key: str
    tick: int
    stamp: int | None
    conflict_priority: int
    shown_tick: int = FIRST_TICK
    received_tick: int = FIRST_TICK
    delivered_tick: int = FIRST_TICK
    purge_floor: int = FIRST_TICK
    part_of: str = ""
    own_url: str = ""


_entries: PreparedQuery[DigestEntryRow] = PreparedQuery(
    lambda kind: (
        DigestEntryRow.objects.filter(digest_id=kind)
        .order_by("pk")
        .values_list(
            "pk",
            "endpoint_id",
            "endpoint__url",
            "endpoint__key",
            "tick",
            "stamp",
            "conflict_priority",
            "shown_tick",
            "received_tick",
            "delivered_tick",
            "purge_floor",
            "digest__part_of",
            "digest__endpoint_url",
        )
    ),
    str,
)


_lock: PreparedQuery[DigestRow] = PreparedQuery(
    lambda kind: DigestRow.objects.select_for_update().filter(pk=kind).values_list("pk"), str
)
_update_entry = PreparedUpdate(
    lambda pk, tick, stamp, priority, shown, received, delivered: (
        DigestEntryRow.objects.filter(pk=pk),
        {
            "tick": tick,
            "stamp": stamp,
            "conflict_priority": priority,
            "shown_tick": shown,
            "received_tick": received,
            "delivered_tick": delivered,
        },
    ),
    *(int, int, DigestEntryRow._meta.get_field("stamp"), int, int, int, int),
)


def _may_filter(endpoint: str) -> bool:
    """Return True if the peer at ``endpoint`` may filter a kind for this node: it is enabled, and that is agreed."""
    peer = Peer.of_endpoint(endpoint)
    return peer is not None and peer.filters_us


class StoredDigest:
    """Hold the digest of one kind as it was when it was read.

    ``value`` is the digest. ``endpoint_id`` and ``endpoint_url`` convert between URLs and primary keys of endpoints.
    """

    def __init__(self, kind: Kind, rows: list[_Row]) -> None:
        self._kind = kind
        self._rows = {row.key: row for row in rows}
        self._ids = {row.key: row.endpoint_id for row in rows}
        self._urls = {row.endpoint_id: row.url for row in rows}
        self._shown = {row.key: row.shown_tick for row in rows}
        self._received = {row.key: row.received_tick for row in rows}
        self._delivered = {row.key: row.delivered_tick for row in rows}
        #: The URL of this node's endpoint as it is stored; empty if none is.
        self.own_url = rows[0].own_url if rows else ""
        #: By local key, the content of the rows that were given ticks under the lock of this digest.
        self.stamped_texts: dict[str, list[Text]] = {}
        entries = (
            DigestEntry(endpoint=row.url, tick=row.tick, stamp=row.stamp, conflict_priority=row.conflict_priority)
            for row in rows
        )
        part_of = rows[0].part_of if rows else ""
        if part_of and not _may_filter(part_of):
            part_of = ""
        self.value = self._with_own(Digest(entries, origin=kind.endpoint, part_of=part_of))

    def _with_own(self, value: Digest) -> Digest:
        own = value.entry(self._kind.endpoint)
        return value.with_entry(
            DigestEntry(
                endpoint=self._kind.endpoint,
                tick=FIRST_TICK if own is None else own.tick,
                stamp=None if own is None else own.stamp,
                conflict_priority=self._kind.priority,  # the declared one: the stored one may be out of date
            )
        )

    def __contains__(self, url: str) -> bool:
        """Return True if the stored digest names the endpoint ``url``."""
        return fold(url) in self._rows

    def count_others(self, *endpoints: str) -> int:
        """Return how many endpoints the stored digest names that are not among ``endpoints``."""
        return len(self._rows.keys() - {fold(endpoint) for endpoint in endpoints})

    def ensure_endpoint_id(self, url: str) -> int:
        """Return the primary key of the endpoint ``url``; insert the endpoint if it has no row yet."""
        key = fold(url)
        if key not in self._ids:
            row, _ = Endpoint.objects.using(self._kind.database).get_or_create(key=key, defaults={"url": url})
            self._ids[key] = row.pk
        return self._ids[key]

    def endpoint_url(self, pk: int) -> str:
        """Return the URL of the endpoint with the primary key ``pk``."""
        if pk not in self._urls:
            self._urls[pk] = Endpoint.objects.using(self._kind.database).get(pk=pk).url
        return self._urls[pk]

    @property
    def former_url(self) -> str:
        """The URL under which this node made its first changes, if it is another one than the present; else empty."""
        return "" if fold(self.own_url) == fold(self._kind.endpoint) else self.own_url

    def shown_tick(self, url: str) -> int:
        """Return the highest tick of the endpoint ``url`` in a version or in the endpoint's own digest."""
        return self._shown.get(fold(url), FIRST_TICK)

    def show(self, url: str, tick: int) -> None:
        """Raise the tick that ``shown_tick`` returns to ``tick``; ``save`` stores it."""
        self._shown[fold(url)] = max(tick, self.shown_tick(url))

    def received_tick(self, url: str) -> int:
        """Return one more than the highest tick of a version that the endpoint ``url`` has delivered itself."""
        return self._received.get(fold(url), FIRST_TICK)

    def receive(self, url: str, tick: int, *, by_itself: bool) -> None:
        """Record that this node has received a version of the endpoint ``url`` with ``tick``; ``save`` stores it.

        ``by_itself`` is true if the endpoint has delivered it, false if another node has relayed it. Relayed versions
        of a peer show no tick of it: that peer shows its ticks itself.
        """
        if by_itself:
            self._received[fold(url)] = max(tick + 1, self.received_tick(url))
            self.deliver(url, tick + 1)
        if by_itself or Peer.of_endpoint(url) is None:
            self.show(url, tick + 1)

    def deliver(self, url: str, tick: int) -> None:
        """Record that the endpoint ``url`` has delivered all its changes below ``tick``; ``save`` stores it."""
        self._delivered[fold(url)] = max(tick, self._delivered.get(fold(url), FIRST_TICK))

    def shown_to(self, url: str, value: Digest) -> Digest:
        """Return the digest ``value`` as it is shown to the endpoint ``url``: with what that endpoint has delivered."""
        return value.shown_to(url, delivered=self._delivered.get(fold(url), FIRST_TICK)) if url else value

    def purge_floor(self, url: str) -> int:
        """Return the tick of the endpoint ``url`` below which its tombstones may have been purged at this node."""
        row = self._rows.get(fold(url))
        return FIRST_TICK if row is None else row.purge_floor

    def save(self, changed: Digest) -> None:
        """Store the entries of ``changed`` that differ from the stored digest; the caller holds the digest's lock."""
        new = []
        for entry in changed:
            key = fold(entry.endpoint)
            row = self._rows.get(key)
            values = self._values_of(entry)
            if row is None:
                new.append(entry)
            elif row[4:10] != values:
                _update_entry.execute(self._kind.database, row.pk, *values)
                self._rows[key] = _Row(*row[:4], *values, row.purge_floor)  # type: ignore[arg-type]
        if new:
            self._create(new)
        self.value = changed
        if not self.own_url and fold(self._kind.endpoint) in self._rows:
            self.own_url = self._kind.endpoint
            DigestRow.objects.using(self._kind.database).filter(pk=self._kind.name).update(endpoint_url=self.own_url)

    def _create(self, entries: list[DigestEntry]) -> None:
        database, kind = self._kind.database, self._kind.name
        DigestRow.objects.using(database).get_or_create(pk=kind)
        self._ensure_endpoints([entry.endpoint for entry in entries])
        if (former := self.former_url) and fold(self._kind.endpoint) in {fold(entry.endpoint) for entry in entries}:
            logger.error("%s", moved(kind, former, self._kind.endpoint))
        forgotten = Endpoint.objects.using(database).filter(is_forgotten=True)
        for keys in chunks((fold(entry.endpoint) for entry in entries), BATCH):
            forgotten.filter(key__in=keys).update(is_forgotten=False)
        created = DigestEntryRow.objects.using(database).bulk_create(
            [
                DigestEntryRow(
                    digest_id=kind,
                    endpoint_id=self.ensure_endpoint_id(entry.endpoint),
                    tick=entry.tick,
                    stamp=entry.stamp,
                    conflict_priority=entry.conflict_priority,
                    shown_tick=self.shown_tick(entry.endpoint),
                    received_tick=self.received_tick(entry.endpoint),
                    delivered_tick=self._delivered.get(fold(entry.endpoint), FIRST_TICK),
                )
                for entry in entries
            ],
            batch_size=BATCH,
        )
        keys = [fold(entry.endpoint) for entry in entries]
        pks = {row.endpoint_id: row.pk for row in created}
        if None in pks.values():  # the database does not return the primary keys of inserted rows
            found = DigestEntryRow.objects.using(database).filter(digest=kind)
            pks = dict(found.values_list("endpoint_id", "pk"))
        for key, entry in zip(keys, entries, strict=True):
            endpoint = self._ids[key]
            self._rows[key] = _Row(pks[endpoint], endpoint, entry.endpoint, key, *self._values_of(entry))

    def _values_of(self, entry: DigestEntry) -> tuple[int, int | None, int, int, int, int]:
        """Return the values that are stored for ``entry``, in the order of ``_update_entry``."""
        shown, received = self.shown_tick(entry.endpoint), self.received_tick(entry.endpoint)
        delivered = self._delivered.get(fold(entry.endpoint), FIRST_TICK)
        return entry.tick, entry.stamp, entry.conflict_priority, shown, received, delivered

    def _ensure_endpoints(self, urls: list[str]) -> None:
        """Insert the missing endpoints of ``urls`` in bulk; up to ``FEW`` of them are left to ``endpoint_id``."""
        unknown = {fold(url): url for url in urls if fold(url) not in self._ids}
        if len(unknown) <= FEW:
            return
        rows = Endpoint.objects.using(self._kind.database)
        for part in chunks(unknown, BATCH):
            rows.bulk_create([Endpoint(key=key, url=unknown[key]) for key in part], ignore_conflicts=True)
            self._ids.update(rows.filter(key__in=part).values_list("key", "pk"))


def moved(kind: str, former: str, present: str) -> str:
    """Return what to do if the endpoint of this node has another URL than before."""
    return (
        f"The {kind} of this node were {former} and are now {present}: other nodes take them for another node. Set "
        "BASE_URL back; or, if the node has moved, run `manage.py sync_rejoin --moved` and give each peer the new URL."
    )


def load_digest(kind: Kind) -> StoredDigest:
    """Read the digest of ``kind`` without locking it."""
    rows = _entries.rows(kind.database, kind.name)
    return StoredDigest(kind, [_Row(*row) for row in rows])


def lock_digest(kind: Kind) -> StoredDigest:
    """Lock the digest of ``kind`` until the present transaction ends, and read it.

    A transaction that assigns ticks or applies a feed takes this lock with its first statement. SQLite has one lock for
    all writers. A transaction that began with IMMEDIATE holds it already. Any other transaction takes it by a write
    before its first read, because data that was read before could be out of date.
    """
    connection = connections[kind.database]
    digests = DigestRow.objects.using(kind.database)
    if locks_rows(kind.database):
        if not _lock.rows(kind.database, kind.name):
            digests.get_or_create(pk=kind.name)
            return lock_digest(kind)
    elif getattr(connection, "transaction_mode", None) != "IMMEDIATE":
        digests.filter(pk=kind.name).update(kind=kind.name)
    return load_digest(kind)


def digest_as_json(digest: Digest) -> str:
    """Return ``digest`` as JSON, for storing it; nothing is lost."""
    entries = [[entry.endpoint, entry.tick, entry.stamp, entry.conflict_priority] for entry in digest]
    return json.dumps({"origin": digest.origin, "part_of": digest.part_of, "entries": entries})


def digest_from_json(text: str) -> Digest:
    """Return the digest that ``digest_as_json`` has converted to ``text``."""
    kept = json.loads(text)
    names = ("endpoint", "tick", "stamp", "conflict_priority")
    return Digest(
        (DigestEntry(**dict(zip(names, values, strict=True))) for values in kept["entries"]),
        origin=kept["origin"],
        part_of=kept.get("part_of", ""),
    )
