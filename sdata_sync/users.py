"""Who makes a change: it travels with it, in ``syncState/user``."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar

from .context import holding

# A function, so that nobody's session is loaded before somebody makes a change.
_current: ContextVar[Callable[[], str] | None] = ContextVar("sdata_sync_user", default=None)

#: What fits into the column; a longer name is cut.
MAX_LENGTH = 150


def current_user() -> str:
    """Return the name of whoever is making changes here and now, empty if that is not known."""
    find = _current.get()
    return find()[:MAX_LENGTH] if find else ""


def acting_as(user: str | Callable[[], str]) -> AbstractContextManager[None]:
    """Record the changes made inside as those of ``user``: a name, or a function that finds it out when asked.

    For commands and tasks; in requests ``sdata_sync.middleware.SyncUserMiddleware`` does it.
    """
    return holding(_current, user if callable(user) else lambda: user)
