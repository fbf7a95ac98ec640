"""The digest of a kind in the database: loaded, locked, moved on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from django.db import connections

from ...core.digest import Digest, DigestEntry
from ...core.state import FIRST_TICK
from ...models import Digest as DigestRow
from ...models import DigestEntry as DigestEntryRow
from ...models import Endpoint
from ..db.prepared import PreparedQuery, PreparedUpdate
from ..db.statements import chunks, locks_rows

if TYPE_CHECKING:
    from ...atom.payload import Text
    from ...kind import Kind

#: Rows that are written in one statement.
BATCH = 500
#: So many new endpoints are noted one by one.
FEW = 2


class _Row(NamedTuple):
    pk: int
    endpoint_id: int
    url: str
    key: str
    tick: int
    stamp: int | None
    conflict_priority: int
    shown_tick: int = FIRST_TICK
    heard_tick: int = FIRST_TICK
    purge_floor: int = FIRST_TICK
    part_of: str = ""


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
            "heard_tick",
            "purge_floor",
            "digest__part_of",
        )
    ),
    str,
)


_lock: PreparedQuery[DigestRow] = PreparedQuery(
    lambda kind: DigestRow.objects.select_for_update().filter(pk=kind).values_list("pk"), str
)
_update_entry = PreparedUpdate(
    lambda pk, tick, stamp, priority, shown, heard: (
        DigestEntryRow.objects.filter(pk=pk),
        {"tick": tick, "stamp": stamp, "conflict_priority": priority, "shown_tick": shown, "heard_tick": heard},
    ),
    *(int, int, DigestEntryRow._meta.get_field("stamp"), int, int, int),
)


class StoredDigest:
    """The digest of one kind as it was when it was read.

    ``value`` is the digest; ``endpoint_id`` and ``endpoint_url`` translate between URLs and rows.
    """

    def __init__(self, resource: Kind, rows: list[_Row]) -> None:
        self._resource = resource
        self._rows = {row.key: row for row in rows}
        self._ids = {row.key: row.endpoint_id for row in rows}
        self._urls = {row.endpoint_id: row.url for row in rows}
        self._shown = {row.key: row.shown_tick for row in rows}
        self._heard = {row.key: row.heard_tick for row in rows}
        #: The texts of rows that were numbered together with this digest, by local key.
        self.numbered: dict[str, list[Text]] = {}
        entries = (
            DigestEntry(endpoint=row.url, tick=row.tick, stamp=row.stamp, conflict_priority=row.conflict_priority)
            for row in rows
        )
        self.value = self._with_own(Digest(entries, origin=resource.endpoint, part_of=rows[0].part_of if rows else ""))

    def _with_own(self, value: Digest) -> Digest:
        own = value.entry(self._resource.endpoint)
        return value.with_entry(
            DigestEntry(
                endpoint=self._resource.endpoint,
                tick=FIRST_TICK if own is None else own.tick,
                stamp=None if own is None else own.stamp,
                conflict_priority=self._resource.priority,  # the setting's, whatever was stored
            )
        )

    def __contains__(self, url: str) -> bool:
        """Return True if the stored digest names the endpoint ``url``."""
        return url.lower() in self._rows

    def count_others(self, *endpoints: str) -> int:
        """Return how many endpoints the stored digest names beside ``endpoints``."""
        return len(self._rows.keys() - {endpoint.lower() for endpoint in endpoints})

    def endpoint_id(self, url: str) -> int:
        """Return the primary key of an endpoint, noting it if it was never seen."""
        key = url.lower()
        if key not in self._ids:
            row, _ = Endpoint.objects.using(self._resource.database).get_or_create(key=key, defaults={"url": url})
            self._ids[key] = row.pk
        return self._ids[key]

    def endpoint_url(self, pk: int) -> str:
        """Return the URL of the endpoint with the primary key ``pk``."""
        if pk not in self._urls:
            self._urls[pk] = Endpoint.objects.using(self._resource.database).get(pk=pk).url
        return self._urls[pk]

    def shown_tick(self, url: str) -> int:
        """Return the highest tick that an endpoint has shown, in a version or in its own digest."""
        return self._shown.get(url.lower(), FIRST_TICK)

    def show(self, url: str, tick: int) -> None:
        """Note that an endpoint has shown ``tick``; it is stored by ``save``."""
        self._shown[url.lower()] = max(tick, self.shown_tick(url))

    def heard_tick(self, url: str) -> int:
        """Return the tick after the highest one with which a version of an endpoint has come here."""
        return self._heard.get(url.lower(), FIRST_TICK)

    def hear(self, url: str, tick: int) -> None:
        """Note that a version of an endpoint has come with ``tick``; it is stored by ``save``."""
        self._heard[url.lower()] = max(tick + 1, self.heard_tick(url))
        self.show(url, tick + 1)

    def purge_floor(self, url: str) -> int:
        """Return the tick of an endpoint below which its tombstones may have been purged here."""
        row = self._rows.get(url.lower())
        return FIRST_TICK if row is None else row.purge_floor

    def save(self, changed: Digest) -> None:
        """Store what ``changed`` says differently; call it under the lock."""
        new = []
        for entry in changed:
            key = entry.endpoint.lower()
            row = self._rows.get(key)
            values = self._values_of(entry)
            if row is None:
                new.append(entry)
            elif row[4:9] != values:
                _update_entry.execute(self._resource.database, row.pk, *values)
                self._rows[key] = _Row(*row[:4], *values, row.purge_floor)  # type: ignore[arg-type]
        if new:
            self._create(new)
        self.value = changed

    def _create(self, entries: list[DigestEntry]) -> None:
        database, kind = self._resource.database, self._resource.kind
        DigestRow.objects.using(database).get_or_create(pk=kind)
        self._note_endpoints([entry.endpoint for entry in entries])
        forgotten = Endpoint.objects.using(database).filter(is_forgotten=True)
        for keys in chunks((entry.endpoint.lower() for entry in entries), BATCH):
            forgotten.filter(key__in=keys).update(is_forgotten=False)
        created = DigestEntryRow.objects.using(database).bulk_create(
            [
                DigestEntryRow(
                    digest_id=kind,
                    endpoint_id=self.endpoint_id(entry.endpoint),
                    tick=entry.tick,
                    stamp=entry.stamp,
                    conflict_priority=entry.conflict_priority,
                    shown_tick=self.shown_tick(entry.endpoint),
                    heard_tick=self.heard_tick(entry.endpoint),
                )
                for entry in entries
            ],
            batch_size=BATCH,
        )
        keys = [entry.endpoint.lower() for entry in entries]
        pks = {row.endpoint_id: row.pk for row in created}
        if None in pks.values():  # a database that does not return what it has inserted
            found = DigestEntryRow.objects.using(database).filter(digest=kind)
            pks = dict(found.values_list("endpoint_id", "pk"))
        for key, entry in zip(keys, entries, strict=True):
            endpoint = self._ids[key]
            self._rows[key] = _Row(pks[endpoint], endpoint, entry.endpoint, key, *self._values_of(entry))

    def _values_of(self, entry: DigestEntry) -> tuple[int, int | None, int, int, int]:
        """Return what is stored of an entry, in the order of ``_update_entry``."""
        shown, heard = self.shown_tick(entry.endpoint), self.heard_tick(entry.endpoint)
        return entry.tick, entry.stamp, entry.conflict_priority, shown, heard

    def _note_endpoints(self, urls: list[str]) -> None:
        """Have a row for each of ``urls``; one or two come by themselves."""
        unknown = {url.lower(): url for url in urls if url.lower() not in self._ids}
        if len(unknown) <= FEW:
            return
        rows = Endpoint.objects.using(self._resource.database)
        for part in chunks(unknown, BATCH):
            rows.bulk_create([Endpoint(key=key, url=unknown[key]) for key in part], ignore_conflicts=True)
            self._ids.update(rows.filter(key__in=part).values_list("key", "pk"))


def load_digest(resource: Kind) -> StoredDigest:
    """Read the digest of ``resource`` as it is committed."""
    rows = _entries.rows(resource.database, resource.kind)
    return StoredDigest(resource, [_Row(*row) for row in rows])


def lock_digest(resource: Kind) -> StoredDigest:
    """Lock the digest of ``resource`` until the present transaction ends, and read it.

    Whoever gives ticks or applies a feed holds this lock. It is taken by the first statement of its
    transaction. SQLite knows one lock, that of all writers: a transaction that began IMMEDIATE holds it
    already, another takes it by writing first, before it has read anything that could be out of date then.
    """
    connection = connections[resource.database]
    digests = DigestRow.objects.using(resource.database)
    if locks_rows(resource.database):
        if not _lock.rows(resource.database, resource.kind):
            digests.get_or_create(pk=resource.kind)
            return lock_digest(resource)
    elif getattr(connection, "transaction_mode", None) != "IMMEDIATE":
        digests.filter(pk=resource.kind).update(kind=resource.kind)
    return load_digest(resource)


def digest_as_json(digest: Digest) -> str:
    """Return all that ``digest`` says, to be kept."""
    entries = [[entry.endpoint, entry.tick, entry.stamp, entry.conflict_priority] for entry in digest]
    return json.dumps({"origin": digest.origin, "part_of": digest.part_of, "entries": entries})


def digest_from_json(text: str) -> Digest:
    """Return what ``digest_as_json`` was given."""
    kept = json.loads(text)
    names = ("endpoint", "tick", "stamp", "conflict_priority")
    return Digest(
        (DigestEntry(**dict(zip(names, values, strict=True))) for values in kept["entries"]),
        origin=kept["origin"],
        part_of=kept.get("part_of", ""),
    )
