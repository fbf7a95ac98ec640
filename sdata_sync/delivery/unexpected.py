"""What nobody thought of, and what must not be taken for it.

One peer or one kind that fails in a way that nobody thought of keeps no other. But some errors are not about the one
at all, and pass through.
"""

from __future__ import annotations

from django.db import InterfaceError

#: Ours is gone, for every peer and kind: the connection with the database.
_passing: list[type[Exception]] = [InterfaceError]


def let_pass(error: type[Exception]) -> None:
    """Have ``error`` end whatever is being done: whoever runs it says with it that the time is up, for instance."""
    _passing.append(error)


def is_about_all(error: Exception) -> bool:
    """Tell whether ``error`` is to pass through where the others are to go on."""
    return isinstance(error, tuple(_passing))
