"""What becomes of one received entry: applied, ignored, or a conflict, and who wins it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from .state import SyncState, is_later, same_endpoint

if TYPE_CHECKING:
    from .digest import Digest


class Relation(Enum):
    """How the version that a source sends stands to the one that the target holds (SData sync 2.6, 5.4)."""

    UNKNOWN = "the target has no such resource"
    NEWER = "the source's version was made in knowledge of the target's"
    KNOWN = "the target already takes the source's version into account"
    CONCURRENT = "neither was made in knowledge of the other"


class Rule(StrEnum):
    """The rule that settled a conflict."""

    SAME_CONTENT = "same content"
    PRIORITY = "conflict priority"
    STAMP = "later stamp"
    ENDPOINT = "smaller endpoint"
    APPLICATION = "the application"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """The outcome of a conflict.

    ``source_wins`` says whose version stays. ``by`` names the rule. ``record`` asks the deciding node to
    record the outcome as a change of its own (new tick, stamp later than both): priority overruled the later
    stamp, and without a record of that a third node would order the two versions differently.
    """

    source_wins: bool
    by: Rule
    record: bool = False


def decide(source_state: SyncState, target_state: SyncState | None, source: Digest, target: Digest) -> Relation:
    """Compare a received version with the one held, in the order of SData sync 5.4.

    ``source`` and ``target`` are the two sides' digests; ``target_state`` is ``None`` for a resource that the
    target has never had. Where both sides' digests contain the other's version, the versions agree.
    """
    if target_state is None:
        # Contained and yet not held: a tombstone that was purged. The deletion is what we know.
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
    """Settle a conflict alike everywhere (SData sync 5.4, 2.3).

    Equal content is nothing to fight over: the later state is kept. Else the lower conflict priority wins,
    that of the source's endpoint as the source says it against that of the target's as the target says it;
    of equal priorities the later stamp; of equal stamps the smaller endpoint URL. Without ``by_priority`` all
    priorities count as equal.
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
