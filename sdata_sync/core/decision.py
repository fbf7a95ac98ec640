"""Decide whether a received entry is applied, ignored or a conflict, and which version wins a conflict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from .state import SyncState, is_later, same_endpoint

if TYPE_CHECKING:
    from .digest import Digest


class Relation(Enum):
    """Name how the source's version of a resource relates to the target's version (SData sync 2.6, 5.4)."""

    UNKNOWN = "the target has no such resource"
    NEWER = "the source's version was made in knowledge of the target's"
    KNOWN = "the target already takes the source's version into account"
    CONCURRENT = "neither was made in knowledge of the other"


class Rule(StrEnum):
    """Name the rule that decided a conflict."""

    SAME_CONTENT = "same content"
    PRIORITY = "conflict priority"
    STAMP = "later stamp"
    ENDPOINT = "smaller endpoint"
    APPLICATION = "the application"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """Hold the outcome of a conflict.

    ``source_wins`` is true if the source's version stays. ``by`` is the rule that decided. ``record`` is true if the
    deciding node must record the outcome as a change of its own, with a new tick and a stamp later than both stamps.
    That is needed when the priority overruled the later stamp: without a recorded change, a third node would order the
    two versions differently.
    """

    source_wins: bool
    by: Rule
    record: bool = False


def decide(source_state: SyncState, target_state: SyncState | None, source: Digest, target: Digest) -> Relation:
    """Compare a received version with the target's version, in the order of the rules in SData sync 5.4.

    ``source`` and ``target`` are the digests of the two nodes. ``target_state`` is ``None`` if the target has never had
    the resource. If each digest contains the version of the other node, the two versions agree.
    """
    if target_state is None:
        # Contained in the digest but not stored: the tombstone was purged. The resource counts as deleted.
        return Relation.KNOWN if target.contains(source_state) else Relation.UNKNOWN
    if same_endpoint(source_state.endpoint, target_state.endpoint):
        return Relation.NEWER if source_state.tick > target_state.tick else Relation.KNOWN
    if source.contains(target_state):
        return Relation.NEWER
    if target.contains(source_state):
        return Relation.KNOWN
    return Relation.CONCURRENT


def resolve(
    source_state: SyncState,
    target_state: SyncState,
    source: Digest,
    target: Digest,
    *,
    same_content: bool,
    by_priority: bool = True,
) -> Resolution:
    """Choose the winner of a conflict by the same rules at every node (SData sync 5.4, 2.3).

    If the contents are equal, there is nothing to decide and the later state is kept. Otherwise the lower conflict
    priority wins: the source's digest gives the priority of the source's endpoint, the target's digest gives the
    priority of the target's endpoint. If the priorities are equal, the later stamp wins. If the stamps are equal, the
    smaller endpoint URL wins. With ``by_priority=False`` all priorities count as equal.
    """
    source_is_later = is_later(source_state, target_state)
    if same_content:
        return Resolution(source_wins=source_is_later, by=Rule.SAME_CONTENT)
    source_priority = source.conflict_priority(source_state.endpoint)
    target_priority = target.conflict_priority(target_state.endpoint)
    if by_priority and source_priority != target_priority:
        source_wins = source_priority < target_priority
        return Resolution(source_wins=source_wins, by=Rule.PRIORITY, record=source_wins != source_is_later)
    by = Rule.STAMP if source_state.stamp != target_state.stamp else Rule.ENDPOINT
    return Resolution(source_wins=source_is_later, by=by)
