"""Counting what becomes of the entries received, in the transaction that applies them, for whoever watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.db.models import F, QuerySet

from ..atom.entry import Result
from ..models import Digest
from ..resources import SyncResource
from .prepared import PreparedUpdate
from .results import UNCHANGED

#: What may become of an entry.
OUTCOMES = ("applied", "ignored", "lost", "deferred")
_NAMES = (*OUTCOMES, "conflicts")
_STATUSES = {409: "lost", 202: "deferred"}


def _counting(kind: str, *counts: int) -> tuple[QuerySet[Digest], dict[str, Any]]:
    return Digest.objects.filter(pk=kind), {name: F(name) + count for name, count in zip(_NAMES, counts, strict=True)}


_count = PreparedUpdate(_counting, str, *[int] * len(_NAMES))


def count_received(resource: SyncResource, results: Iterable[Result], *, conflicts: int) -> None:
    """Add ``results`` to the numbers of the kind; call it under the lock of its digest."""
    counts = Counter(_outcome(result) for result in results)
    if counts:
        counts["conflicts"] = conflicts
        _count.execute(resource.database, resource.kind, *(counts[name] for name in _NAMES))


def _outcome(result: Result) -> str:
    return _STATUSES.get(result.status) or ("ignored" if result.message == UNCHANGED else "applied")
