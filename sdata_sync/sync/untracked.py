"""Rows that nobody has told of: found by their keys, a thousand at a time."""

from collections.abc import Callable, Iterator
from typing import Any

from ..models import TrackedResource
from ..resources import SyncResource

BATCH = 1000


def untracked_keys(
    resource: SyncResource, *, on_batch: Callable[[int], None] = lambda count: None
) -> Iterator[list[str]]:
    """Yield the local keys that are not tracked, of each chunk of the table; each begins where the last one ended.

    ``on_batch`` is told afterwards how many rows were looked at.
    """
    last: Any = None
    while True:
        rows = resource.rows().order_by("pk")
        if last is not None:
            rows = rows.filter(pk__gt=last)
        keys: list[Any] = list(rows.values_list("pk", flat=True)[:BATCH])
        if not keys:
            return
        yield without_tracked(resource, [str(key) for key in keys])
        last = keys[-1]
        on_batch(len(keys))


def without_tracked(resource: SyncResource, keys: list[str]) -> list[str]:
    """Return those of ``keys`` that are not tracked, in their order."""
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind, local_key__in=keys)
    tracked = set(rows.values_list("local_key", flat=True))
    return [key for key in keys if key not in tracked]
