"""Hearing the peers before the first number.

A node that was restored from a backup would give ticks that others have seen, and a tick that is given twice hides
one of its two changes. So a process asks the peers that answer how far they know this node before it numbers
anything of a kind; what is marked meanwhile waits.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable

from ..conf import conf
from ..resources import SyncResource
from .wakeup import wake

#: When the peers are asked again after one that knows more of this node would not give it back.
RETRY_SECONDS = 5.0
#: How long whoever selects or delivers waits for another thread that is asking.
PATIENCE_SECONDS = 5.0

_ask: list[Callable[[SyncResource], bool]] = []
_heard: set[str] = set()
_again_at: dict[str, float] = {}
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def ask_with(ask: Callable[[SyncResource], bool]) -> None:
    """Have ``ask`` called for each kind, once in a process, before its first change is numbered.

    It returns whether this node may number; if not, it is called again later.
    """
    _ask[:] = [ask]


def may_number(resource: SyncResource, *, patience: float = 0) -> bool:
    """Ask the peers if nobody has yet; false while somebody is at it: then what is marked is numbered later.

    ``patience`` is how many seconds to wait for somebody who is at it.
    """
    kind = resource.kind
    if kind in _heard or not _ask or not conf.ask_peers_first:
        return True
    if not _locks[kind].acquire(timeout=patience):
        return False
    try:
        if kind in _heard:
            return True
        if time.monotonic() < _again_at.get(kind, 0):
            return False
        if not _ask[0](resource):
            _again_at[kind] = time.monotonic() + RETRY_SECONDS
            return False
        _heard.add(kind)
    finally:
        _locks[kind].release()
    wake(kind)  # for those who were told to wait
    return True


def wait_to_number(resource: SyncResource) -> bool:
    """Do the same, with some patience; not for ever, since two nodes may be waiting for each other."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not may_number(resource):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
