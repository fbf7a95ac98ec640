"""Choose the peers and kinds that the options ``--peer`` and ``--kind`` of a command name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.core.management.base import CommandError

from ..core.text import fold
from ..kind import Kind
from ..models import Peer
from ..registry import registry


def chosen_peers(names: Sequence[str] | None) -> list[Peer]:
    """Return the enabled peers ``names``; without names all enabled peers.

    Raises:
        CommandError: a name is that of no enabled peer, or there is no enabled peer at all.
    """
    peers = list(Peer.objects.filter(enabled=True))
    if names:
        _expect_all(names, [peer.name for peer in peers], "enabled peer")
        peers = [peer for peer in peers if peer.name in names]
    if not peers:
        raise CommandError("There is no enabled peer. Add one with: manage.py sync_peer add")
    return peers


def chosen_kinds(names: Sequence[str] | None) -> list[Kind]:
    """Return the kinds ``names``, which are compared ignoring case; without names all kinds.

    Raises:
        CommandError: a name is that of no kind.
    """
    kinds = list(registry)
    if not names:
        return kinds
    wanted = {fold(name) for name in names}
    _expect_all(names, [kind.name for kind in kinds], "kind")
    return [kind for kind in kinds if fold(kind.name) in wanted]


def _expect_all(wanted: Sequence[str], known: Collection[str], what: str) -> None:
    fold = str.lower if what == "kind" else str
    found = set(map(fold, known))
    missing = [name for name in wanted if fold(name) not in found]
    if missing:
        there = ", ".join(sorted(known)) or "none"
        raise CommandError(f"There is no {what} {', '.join(map(repr, missing))} here; there are: {there}.")
