"""Store which digests of its source a received deletion waits for, before it may delete other rows.

The deletion may delete other rows once this node contains the changes that the source had when it sent the deletion.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.digest import Digest, DigestEntry
from ...core.state import same_endpoint
from ...core.text import fold
from ...models import DeletionCondition, Peer
from ...models import Digest as DigestRow
from ...registry import registry
from ..bounds import believed
from ..log.digests import load_digest
from .cascade import kinds_within_reach

if TYPE_CHECKING:
    from ...kind import Kind


@dataclass(kw_only=True, eq=False)
class Condition:
    """Hold the digests that this node must contain before the deletions of one page may delete other rows.

    ``origin`` is the source's endpoint. ``seen`` is, by kind, the source's digest when it sent the deletions; ``None``
    until the digest was read from the source. ``pk`` is the primary key of the stored ``DeletionCondition``, ``None``
    if it is not stored.
    """

    origin: str
    seen: Mapping[str, Digest | None]
    pk: int | None = None

    @classmethod
    def record(cls, kind: Kind, source: Digest, said: Mapping[str, Digest] | None) -> Condition:
        """Return the condition of a page from ``source``; ``said`` are the digests of other kinds that it carries.

        The digests are sent to other nodes together with the deletions (``told_digests``).
        """
        known = {fold(kind_name): digest for kind_name, digest in (said or {}).items()}
        seen: dict[str, Digest | None] = {}
        for kind_name in kinds_within_reach(kind):
            other, digest = registry.of_kind(kind_name), known.get(fold(kind_name))
            if kind_name == kind.name:
                seen[kind_name] = source
            elif other is None or not other.is_target:
                seen[kind_name] = Digest()  # this node never receives the source's changes of it
            else:
                seen[kind_name] = None if digest is None else believed(other, digest)
        _store_told(
            kind, {kind_name: digest for kind_name, digest in seen.items() if digest and kind_name != kind.name}
        )
        return cls(origin=source.origin, seen=seen)

    @classmethod
    def load(cls, row: DeletionCondition) -> Condition:
        """Return the condition that is stored in ``row``."""
        seen = {kind: None if ticks is None else _digest(ticks) for kind, ticks in json.loads(row.seen).items()}
        return cls(origin=row.origin, seen=seen, pk=row.pk)

    def store(self, using: str) -> int:
        """Store the condition and return its primary key."""
        seen = {kind: None if digest is None else _ticks(digest) for kind, digest in self.seen.items()}
        return DeletionCondition.objects.using(using).create(origin=self.origin, seen=json.dumps(seen)).pk

    def lacking(self, kinds: Iterable[str]) -> list[str]:
        """Return those of ``kinds`` of which this node lacks a change that the source had."""
        return sorted(kind for kind in kinds if not self._is_reached(kind))

    def _is_reached(self, kind_name: str) -> bool:
        seen, kind = self.seen.get(kind_name, Digest()), registry.of_kind(kind_name)
        if seen is None:  # not read yet; from a source that is no enabled peer it cannot be read: no row counts as seen
            return Peer.of_endpoint(self.origin) is None
        if kind is None:
            return True
        ours = load_digest(kind).value
        return all(
            ours.tick(entry.endpoint) >= entry.tick
            for entry in seen
            # This node's own changes count by its own digest. A partial replica contains only its source's own changes
            # for sure.
            if not same_endpoint(entry.endpoint, kind.endpoint)
            and (not ours.part_of or same_endpoint(entry.endpoint, ours.part_of))
        )


def _ticks(digest: Digest) -> dict[str, int]:
    return {entry.endpoint: entry.tick for entry in digest}


def _digest(ticks: Mapping[str, int]) -> Digest:
    return Digest(DigestEntry(endpoint=endpoint, tick=tick) for endpoint, tick in ticks.items())


def _store_told(kind: Kind, said: Mapping[str, Digest]) -> None:
    """Store the digests of other kinds that a source has sent, as far as this node lacks changes in them.

    The caller holds the digest's lock.
    """
    told = told_digests(kind)
    lacking: dict[str, dict[str, int]] = {}
    for kind_name in {*told, *said}:
        other = registry.of_kind(kind_name)
        ours = Digest() if other is None else load_digest(other).value
        digest = told.get(kind_name, Digest()).merge(said.get(kind_name, Digest()), stamp=0)
        ticks = {entry.endpoint: entry.tick for entry in digest if entry.tick > ours.tick(entry.endpoint)}
        if ticks:
            lacking[kind_name] = ticks
    if lacking or told:
        rows = DigestRow.objects.using(kind.database)
        rows.update_or_create(pk=kind.name, defaults={"told_digests": json.dumps(lacking) if lacking else ""})


def told_digests(kind: Kind) -> dict[str, Digest]:
    """Return the stored digests, by kind, that sources of deletions of ``kind`` had and this node may lack."""
    row = DigestRow.objects.using(kind.database).filter(pk=kind.name).values_list("told_digests", flat=True)
    return {kind_name: _digest(ticks) for kind_name, ticks in json.loads(row.first() or "{}").items()}


def unanswered_conditions(origin: str, kind: str, using: str) -> list[int]:
    """Return the primary keys of the conditions that lack the digest that the source ``origin`` has of ``kind``.

    It is called before the digest is read: only a digest that was read after the deletion arrived answers the
    condition.
    """
    dataset = fold(origin.rpartition("/")[0])
    rows = DeletionCondition.objects.using(using).filter(origin__istartswith=f"{dataset}/")
    return [row.pk for row in rows if kind in (seen := json.loads(row.seen)) and seen[kind] is None]


def answer_conditions(conditions: Collection[int], kind_name: str, seen: Digest, using: str) -> None:
    """Store the digest of ``kind`` that was read from the source of ``conditions`` (primary keys).

    ``seen`` is empty if the source does not share the kind.
    """
    for row in DeletionCondition.objects.using(using).filter(pk__in=conditions):
        said = json.loads(row.seen)
        if said.get(kind_name, {}) is None:
            kind = registry.of_kind(kind_name)
            said[kind_name] = _ticks(seen if kind is None else believed(kind, seen))
            row.seen = json.dumps(said)
            row.save(using=using, update_fields=["seen"])


def forget_met_conditions(using: str) -> None:
    """Delete the stored conditions that no deferred deletion waits for any more."""
    DeletionCondition.objects.using(using).filter(entries__isnull=True).delete()
