"""Notify the delivery backend that a kind has changed, after the commit."""

from collections.abc import Callable
from functools import cache, partial

from django.db import transaction

Listener = Callable[[str, bool], None]

_listeners: list[Listener] = []


def on_wakeup(listener: Listener) -> None:
    """Call ``listener`` with a kind, and whether the change is our own, when something has been committed.

    It is called in the writer's own thread and must return at once. What came from others matters only to
    peers that this node relays to.
    """
    if listener not in _listeners:
        _listeners.append(listener)


def wake_after_commit(kind: str, using: str, *, is_own: bool = True) -> None:
    """Wake the listeners when the present transaction commits; now, if there is none."""
    transaction.on_commit(_waking(kind, is_own), using=using)


@cache
def _waking(kind: str, is_own: bool) -> Callable[[], None]:
    return partial(wake, kind, is_own)


def wake(kind: str, is_own: bool = True) -> None:
    """Wake the listeners now."""
    for listener in _listeners:
        listener(kind, is_own)
