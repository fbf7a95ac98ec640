"""Notify the delivery backend that a kind has changed, after the commit."""

from collections.abc import Callable
from functools import cache, partial

from django.db import transaction

from ..port import port


def wake_after_commit(kind: str, using: str, *, is_own: bool = True) -> None:
    """Wake the delivery backend when the present transaction commits; now, if there is none.

    ``is_own`` is False for a received change.
    """
    transaction.on_commit(_waking(kind, is_own), using=using)


@cache
def _waking(kind: str, is_own: bool) -> Callable[[], None]:
    return partial(wake, kind, is_own)


def wake(kind: str, is_own: bool = True) -> None:
    """Wake the delivery backend now."""
    port().wake(kind, is_own)
