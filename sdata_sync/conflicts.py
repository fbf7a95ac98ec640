"""Describe a conflict to the application, which may decide it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

if TYPE_CHECKING:
    from .core.decision import Rule
    from .core.state import SyncState

#: The result of ``SyncResource.resolve``: the version to keep, merged values, or ``None`` to apply the rules.
Decision = Literal["local", "remote"] | Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConflictVersion:
    """Hold the state and the values by column name of one version; values are ``None`` for a deletion.

    The values of a remote version contain only the columns that its payload had.
    """

    state: SyncState
    values: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Hold two concurrent versions of one resource (SData sync 5.4).

    ``remote_wins`` and ``rule`` are the decision of the protocol's rules, which is the same at every node.
    """

    kind: str
    uuid: UUID
    local: ConflictVersion
    remote: ConflictVersion
    remote_wins: bool
    rule: Rule
