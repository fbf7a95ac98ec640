"""What holds for a while, in whatever thread or task says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def holding(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Let ``variable`` be ``value`` inside, and afterwards what it was; it nests."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
