"""Match the rows of two nodes that both had data before they were connected (SData sync 1.2, 1.4).

The peer's full feed of a kind is read, so that each of its rows has a uuid. A row of this node that is the same thing
gets that uuid when an administrator has confirmed the pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..exceptions import LinkError, PayloadError
from ..sync.db.statements import chunks
from ..sync.identity.link import link
from ..sync.log.digests import lock_digest
from ..sync.log.keys import key_text
from ..sync.log.tracked import tracked_rows
from ..turns import write_transaction
from .pull import read_full_feed

if TYPE_CHECKING:
    from ..kind import Kind
    from ..models import Peer
    from .client import PeerClient

#: The lowest scores of a certain pair and of a likely pair; pairs below are not shown.
CERTAIN, LIKELY = 0.95, 0.7
#: The number of pairs that are linked in one transaction.
BATCH = 500


class Certainty(StrEnum):
    """The certainty that two rows are the same thing."""

    CERTAIN = "certain"
    LIKELY = "likely"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Two rows that may be the same thing.

    ``local_key`` is the primary key of this node's row, ``uuid`` the uuid of the peer's row. ``local`` and ``remote``
    are the values of both as text.
    """

    certainty: Certainty
    score: float
    local_key: str
    uuid: UUID
    local: str
    remote: str

    def as_dict(self) -> dict[str, Any]:
        """Return the candidate as plain values for JSON and CSV."""
        return {**asdict(self), "certainty": str(self.certainty), "uuid": str(self.uuid)}


@dataclass(kw_only=True)
class Linked:
    """The number of pairs that were linked, and the reason for each pair that was refused."""

    linked: int = 0
    refused: list[str] = field(default_factory=list)


_Values = Mapping[str, Any]


def find_candidates(client: PeerClient, peer: Peer, kind: Kind) -> list[Candidate]:
    """Return the pairs that ``match_on`` finds among rows that are not linked yet, the most certain first (network).

    Raises:
        PeerError: the peer cannot be reached, refuses the request, or answers what cannot be read.
        ValueError: the resource has no ``match_on``.
    """
    match_on = type(kind.declared).match_on
    if not match_on:
        raise ValueError(f"{kind!r} has no match_on. Set it to the names of the fields that identify a row.")
    remote = dict(_remote_rows(client, peer, kind))
    known = dict(tracked_rows(kind).filter(local_key__isnull=False).values_list("uuid", "local_key"))
    linked_here = {known[uuid] for uuid in remote if uuid in known}
    remote = {uuid: values for uuid, values in remote.items() if uuid not in known}
    local = {key: values for key, values in _local_rows(kind) if key not in linked_here}
    if callable(match_on):
        found = _by_score(local, remote, match_on)
    else:
        names = [kind.model._meta.get_field(name).attname for name in match_on]  # type: ignore[union-attr]
        found = _by_fields(local, remote, names)
    order = list(Certainty)
    return sorted(
        found, key=lambda candidate: (order.index(candidate.certainty), -candidate.score, candidate.local_key)
    )


def _local_rows(kind: Kind) -> Iterator[tuple[str, _Values]]:
    names = _columns(kind)
    pk = kind.model._meta.pk
    for key, *values in kind.rows().order_by("pk").values_list("pk", *names).iterator(2000):
        yield key_text(pk, key), dict(zip(names, values, strict=True))


def _columns(kind: Kind) -> list[str]:
    return [prop.field.attname for prop in kind.properties]


def _remote_rows(client: PeerClient, peer: Peer, kind: Kind) -> Iterator[tuple[UUID, _Values]]:
    for entries in read_full_feed(client, peer, kind):
        for entry in entries:
            if entry.is_deleted or entry.payload is None:
                continue
            try:
                yield entry.uuid, kind.decode(entry.payload).values
            except PayloadError:
                continue  # a payload that cannot be read matches no row


def _by_fields(
    local: Mapping[str, _Values], remote: Mapping[UUID, _Values], names: Sequence[str]
) -> Iterator[Candidate]:
    ours: dict[tuple[str, ...], list[str]] = defaultdict(list)
    theirs: dict[tuple[str, ...], list[UUID]] = defaultdict(list)
    for key, values in local.items():
        if folded := _folded(values, names):
            ours[folded].append(key)
    for uuid, values in remote.items():
        if folded := _folded(values, names):
            theirs[folded].append(uuid)
    for folded, keys in ours.items():
        uuids = theirs.get(folded, [])
        is_alone = len(keys) == len(uuids) == 1
        for key in keys:
            for uuid in uuids:
                is_exact = all(str(local[key].get(name)) == str(remote[uuid].get(name)) for name in names)
                sure = Certainty.CERTAIN if is_exact else Certainty.LIKELY
                certainty = sure if is_alone else Certainty.AMBIGUOUS
                yield _candidate(certainty, 1.0 if is_exact else 0.9, key, uuid, local, remote)


def _folded(values: _Values, names: Iterable[str]) -> tuple[str, ...] | None:
    """Return the values to compare, without case, or ``None`` if one of them is empty."""
    folded = tuple(str(values.get(name) if values.get(name) is not None else "").strip().casefold() for name in names)
    return folded if all(folded) else None


def _by_score(
    local: Mapping[str, _Values], remote: Mapping[UUID, _Values], compare: Callable[[_Values, _Values], float]
) -> Iterator[Candidate]:
    pairs = [
        (score, key, uuid)
        for key, ours in local.items()
        for uuid, theirs in remote.items()
        if (score := compare(ours, theirs)) >= LIKELY
    ]
    of_key: dict[str, int] = defaultdict(int)
    of_uuid: dict[UUID, int] = defaultdict(int)
    for _, key, uuid in pairs:
        of_key[key] += 1
        of_uuid[uuid] += 1
    for score, key, uuid in pairs:
        is_alone = of_key[key] == of_uuid[uuid] == 1
        sure = Certainty.CERTAIN if score >= CERTAIN else Certainty.LIKELY
        yield _candidate(sure if is_alone else Certainty.AMBIGUOUS, score, key, uuid, local, remote)


def _candidate(
    certainty: Certainty,
    score: float,
    key: str,
    uuid: UUID,
    local: Mapping[str, _Values],
    remote: Mapping[UUID, _Values],
) -> Candidate:
    return Candidate(
        certainty=certainty,
        score=round(score, 3),
        local_key=key,
        uuid=uuid,
        local=_said(local[key]),
        remote=_said(remote[uuid]),
    )


def _said(values: _Values) -> str:
    return ", ".join(str(value) for value in values.values() if value not in (None, ""))[:200]


def link_pairs(kind: Kind, peer: Peer, pairs: Iterable[tuple[str, UUID]], *, ours_win: bool) -> Linked:
    """Give rows of this node the uuids of the peer's rows; ``pairs`` are local keys and uuids.

    The content of a pair is decided when the peer's version arrives: with ``ours_win`` the row keeps this node's
    content, otherwise it takes the peer's. If the kind is no sync target, no version can arrive, and the row keeps its
    content.
    """
    outcome = Linked()
    for batch in chunks(pairs, BATCH):
        with write_transaction(kind.database):
            stored = lock_digest(kind)
            # A kind that receives no changes must not wait for the peer's version.
            wait_for = stored.ensure_endpoint_id(peer.endpoint(kind.name)) if kind.is_target else None
            for key, uuid in batch:
                try:
                    link(kind, key, uuid, keep=ours_win, wait_for=wait_for)
                except LinkError as error:
                    outcome.refused.append(f"{kind.name}('{key}'): {error}")
                else:
                    outcome.linked += 1
    return outcome
