"""Who makes a change: it travels with it, in ``syncState/user``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# A function, so that nobody's session is loaded before somebody makes a change.
_current: ContextVar[Callable[[], str] | None] = ContextVar("sdata_sync_user", default=None)

#: What fits into the column; a longer name is cut.
MAX_LENGTH = 150


def current_user() -> str:
    """Return the name of whoever is making changes here and now, empty if that is not known."""
    find = _current.get()
    return find()[:MAX_LENGTH] if find else ""


@contextmanager
def acting_as(user: str | Callable[[], str]) -> Iterator[None]:
    """Record the changes made inside as those of ``user``: a name, or a function that finds it out when asked.

    For commands and tasks; in requests ``sdata_sync.middleware.SyncUserMiddleware`` does it.
    """
    token = _current.set(user if callable(user) else lambda: user)
    try:
        yield
    finally:
        _current.reset(token)
