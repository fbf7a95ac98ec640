"""Hearing the peers before the first number.

A node that was restored from a backup would give ticks that others have seen, and a tick that is given twice hides
one of its two changes. So a process asks the peers that answer how far they know this node before it numbers
anything of a kind; what is marked meanwhile waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..conf import conf
from ..resources import SyncResource
from .wakeup import wake

_ask: list[Callable[[SyncResource], object]] = []
_heard: set[str] = set()
_lock = threading.Lock()


def ask_with(ask: Callable[[SyncResource], object]) -> None:
    """Have ``ask`` called for each kind, once in a process, before its first change is numbered."""
    _ask[:] = [ask]


def may_number(resource: SyncResource) -> bool:
    """Ask the peers if nobody has yet; false while somebody is at it: then what is marked is numbered later."""
    if resource.kind in _heard or not _ask or not conf.ask_peers_first:
        return True
    if not _lock.acquire(blocking=False):
        return False
    try:
        if resource.kind not in _heard:
            _ask[0](resource)
            _heard.add(resource.kind)
    finally:
        _lock.release()
    wake(resource.kind)  # for those who were told to wait
    return True
