"""A conflict as an application sees it, and what it may say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

if TYPE_CHECKING:
    from .core.decision import Rule
    from .core.state import SyncState

#: What ``SyncResource.resolve`` may return: whose version stays, a merged one, or ``None``: as the rules say.
Decision = Literal["local", "remote"] | Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConflictVersion:
    """One of the two versions: its state, and its values by column name; ``None`` if it is a deletion.

    Of a remote version only what its payload had is among the values.
    """

    state: SyncState
    values: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Two versions of one resource, neither made in knowledge of the other (SData sync 5.4).

    ``remote_wins`` and ``rule`` say how the protocol's rules decide it, alike everywhere.
    """

    kind: str
    uuid: UUID
    local: ConflictVersion
    remote: ConflictVersion
    remote_wins: bool
    rule: Rule
