"""Compare the content of a kind with a peer, row by row: equal digests imply equal data, and this checks it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..exceptions import PayloadError
from ..models import Peer, TrackedResource
from ..sync.content.contents import merged, read_contents
from ..sync.content.deferred import held_back_rows, incomplete_rows
from ..sync.db.isolation import row_guard
from ..sync.db.statements import chunks
from ..sync.log.tracked import mark_found
from ..sync.log.wakeup import wake
from ..sync.stamp.stamper import check_and_assign_ticks
from .pull import read_full_feed

if TYPE_CHECKING:
    from ..atom.entry import Entry
    from ..core.digest import Digest
    from ..kind import Kind
    from .client import PeerClient

logger = logging.getLogger(__name__)

#: The number of uuids that are named of each sort of difference; all are counted.
NAMED = 20


@dataclass(kw_only=True)
class Comparison:
    """The outcome of a comparison of one kind with one peer.

    If ``digests_agree``, both digests contain the same changes and every difference is an error. Otherwise a change
    that one node has not received yet is not counted as a difference.

    The keys of ``counts`` are the sorts of differences: ``different`` rows have another content at each node under the
    same state, ``missing_here`` and ``missing_there`` rows should be there by the digests, ``deferred_here`` and
    ``deferred_there`` entries are not written yet or not completely, ``held_back_here`` changes cannot be sent,
    ``unreadable`` rows cannot be compared because the row of this node
    or the payload of the peer cannot be read. ``columns`` counts, by the name of the property, the different rows in
    which it differs.
    """

    peer: str
    kind: str
    digests_agree: bool
    compared: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "different",
                "missing_here",
                "missing_there",
                "deferred_here",
                "deferred_there",
                "held_back_here",
                "unreadable",
            ),
            0,
        )
    )
    examples: dict[str, list[str]] = field(default_factory=dict)
    columns: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    #: What other apps have not done yet for the rows of this node, for example fetch their files; the caller sets it.
    undone: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether the digests are equal and no difference was found."""
        return self.digests_agree and not any(self.counts.values()) and not self.undone

    def count(self, what: str, uuid: UUID) -> None:
        """Count one difference of the sort ``what``."""
        self.counts[what] += 1
        named = self.examples.setdefault(what, [])
        if len(named) < NAMED:
            named.append(str(uuid))

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values for JSON."""
        who = {"peer": self.peer, "kind": self.kind, "digests_agree": self.digests_agree, "compared": self.compared}
        return {
            **who,
            **self.counts,
            "columns": dict(self.columns),
            "examples": self.examples,
            "repaired": self.repaired,
            "undone": self.undone,
        }


def verify(client: PeerClient, peer: Peer, kind: Kind, *, repair: bool) -> Comparison:
    """Compare every resource of one kind with the peer's; with ``repair`` send this node's version where they differ.

    The peer's full feed is read page by page (network). A resource that is missing here cannot be repaired from this
    node: the peer must send it again.

    Raises:
        PeerError: the peer cannot be reached, refuses the request, or answers what cannot be read.
    """
    ours = check_and_assign_ticks(kind).value
    theirs = client.read_digest(kind.name)
    comparison = Comparison(peer=peer.name, kind=kind.name, digests_agree=ours.in_sync_with(theirs))
    verifier = _Verifier(kind, ours, theirs, comparison)
    for entries in read_full_feed(client, peer, kind):
        verifier.look_at(entries)
    after = client.read_digest(kind.name)
    if after.in_sync_with(theirs):
        verifier.find_missing_there()
    else:
        # The peer found a change while it selected the rows, or made one. The row may be on no page, so nothing is
        # reported as missing there.
        comparison.digests_agree = comparison.digests_agree and ours.in_sync_with(after)
    comparison.counts["deferred_there"] = after.waiting or 0
    if repair and verifier.different_pks:
        _send_again(kind, verifier.different_pks)
        comparison.repaired = len(verifier.different_pks)
    return comparison


class _Verifier:
    def __init__(self, kind: Kind, ours: Digest, theirs: Digest, comparison: Comparison) -> None:
        self._kind = kind
        self._ours, self._theirs = ours, theirs
        self._comparison = comparison
        self._seen: set[bytes] = set()
        # With and without a tick: the peer does not have the change of either.
        for uuid in held_back_rows(kind).values_list("uuid", flat=True):
            comparison.count("held_back_here", uuid)
        for uuid in incomplete_rows(kind).values_list("uuid", flat=True):
            comparison.count("deferred_here", uuid)
        #: The primary keys of the tracked resources to send again.
        self.different_pks: list[int] = []

    def look_at(self, entries: Sequence[Entry]) -> None:
        """Compare one page."""
        rows = TrackedResource.objects.using(self._kind.database).filter(kind=self._kind.name)
        tracked = {row.uuid: row for row in rows.filter(uuid__in=[entry.uuid for entry in entries])}
        for entry in entries:
            self._seen.add(entry.uuid.bytes)
            self._compare(entry, tracked.get(entry.uuid))

    def _compare(self, entry: Entry, tracked: TrackedResource | None) -> None:
        self._comparison.compared += 1
        if not self._ours.contains(entry.state):
            return  # not received yet
        if tracked is None or (tracked.is_deleted and not entry.is_deleted):
            # Not a difference: a tombstone that was purged here, or a deletion that the peer has not received yet.
            if not entry.is_deleted and self._is_contained_there(tracked):
                self._comparison.count("missing_here", entry.uuid)
            return
        if tracked.problem:
            return  # counted as held back
        if tracked.is_deferred:
            self._comparison.count("deferred_here", entry.uuid)
            return
        if tracked.mark is not None or not self._is_contained_there(tracked):
            return
        try:
            with row_guard(self._kind.database):
                different = self._different(entry, tracked)
        except PayloadError as error:
            logger.error("%s %s is reported as unreadable: %s", self._kind.name, entry.uuid, error)
            self._comparison.count("unreadable", entry.uuid)
            return
        if different:
            self._comparison.count("different", entry.uuid)
            self._comparison.columns.update(different)
            self.different_pks.append(tracked.pk)

    def _is_contained_there(self, tracked: TrackedResource | None) -> bool:
        """Return True if the peer's digest contains this node's version, so that both should be equal."""
        if tracked is None or tracked.endpoint is None:
            return True
        return self._theirs.tick(tracked.endpoint.url) > (tracked.tick or 0)

    def _different(self, entry: Entry, tracked: TrackedResource) -> list[str]:
        """Return the names of the properties in which the row of this node differs from the peer's.

        Properties that are not in the peer's payload are not compared.
        """
        kind, key = self._kind, tracked.row_key
        if entry.is_deleted or tracked.is_deleted:
            return [] if entry.is_deleted == tracked.is_deleted else ["(deleted)"]
        present = read_contents(kind, [tracked])[0].get(key)
        if entry.payload is None or present is None:
            return ["(row)"]
        reading = kind.decode(entry.payload)
        contents = merged(kind, reading, present)
        names = [
            name for name, here, there in zip(kind.property_names, present, contents, strict=True) if here != there
        ]
        return names if reading.extra == tracked.extra else [*names, "(elements not known here)"]

    def find_missing_there(self) -> None:
        """Count the living resources of this node that were on no page of the peer."""
        rows = TrackedResource.objects.using(self._kind.database).filter(
            kind=self._kind.name, is_deleted=False, is_deferred=False, mark__isnull=True, tick__isnull=False
        )
        for tracked in rows.select_related("endpoint").order_by("pk").iterator(1000):
            if tracked.uuid.bytes not in self._seen and self._is_contained_there(tracked):
                self._comparison.count("missing_there", tracked.uuid)
                self.different_pks.append(tracked.pk)


def _send_again(kind: Kind, pks: list[int]) -> None:
    for chunk in chunks(pks, 500):
        # The digest of the peer contains the present ticks, so the versions need new ones.
        TrackedResource.objects.using(kind.database).filter(pk__in=chunk).update(restamp=True)
        mark_found(kind.database, chunk)
    check_and_assign_ticks(kind)
    wake(kind.name)
