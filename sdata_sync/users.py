"""Determine the user who makes a change; the name travels in ``syncState/user``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# A function, so that the session is loaded only when a change is made.
_current: ContextVar[Callable[[], str] | None] = ContextVar("sdata_sync_user", default=None)

#: The size of the column, in characters; a longer name is truncated.
MAX_LENGTH = 150


def current_user() -> str:
    """Return the name of the user who makes the present changes, or empty if it is not known."""
    find = _current.get()
    return find()[:MAX_LENGTH] if find else ""


@contextmanager
def acting_as(user: str | Callable[[], str]) -> Iterator[None]:
    """Record the changes made inside the ``with`` block as changes of ``user``.

    ``user`` is a name, or a function that returns the name when a change is made. Use it in commands and tasks; for
    requests use ``sdata_sync.middleware.SyncUserMiddleware``.
    """
    token = _current.set(user if callable(user) else lambda: user)
    try:
        yield
    finally:
        _current.reset(token)
