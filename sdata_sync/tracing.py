"""Create spans for OpenTelemetry if its API is installed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    from opentelemetry import trace
except ImportError:  # OpenTelemetry is an optional dependency
    trace = None  # type: ignore[assignment]


def span(name: str, **facts: Any) -> AbstractContextManager[Any]:
    """Return a context manager for a span ``sdata_sync.<name>`` that has ``facts`` as its attributes."""
    if trace is None:
        return nullcontext()
    attributes: Mapping[str, Any] = {f"sdata_sync.{key}": value for key, value in facts.items()}
    return trace.get_tracer("sdata_sync").start_as_current_span(f"sdata_sync.{name}", attributes=attributes)
