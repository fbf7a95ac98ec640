"""First contact: the rows from before the app was installed, tracked and numbered a thousand at a time."""

from collections.abc import Callable, Iterator
from typing import Any

from django.db import transaction

from ..models import Digest as DigestRow
from ..models import TrackedResource
from ..resources import SyncResource
from .digests import lock_digest
from .hearing import may_number
from .log import new_tracked
from .marks import new_uuid
from .numbering import BATCH, number_new
from .rejoining import behind


def is_complete(resource: SyncResource) -> bool:
    """Tell whether that has been done, once and for all."""
    return DigestRow.objects.using(resource.database).filter(pk=resource.kind, is_complete=True).exists()


def track_existing(resource: SyncResource, *, on_batch: Callable[[int], None] = lambda count: None) -> int:
    """Track and number every row that is not tracked yet, if that was never done; return how many there were.

    Each batch is a transaction, and what is tracked is passed over the next time: an interruption costs nothing.
    ``on_batch`` is told how many rows were looked at.
    """
    if is_complete(resource):
        return 0
    if not may_number(resource) or behind(resource) is not None:
        return 0
    found = track_untracked(resource, on_batch=on_batch)
    DigestRow.objects.using(resource.database).update_or_create(pk=resource.kind, defaults={"is_complete": True})
    return found


def track_untracked(resource: SyncResource, *, on_batch: Callable[[int], None] = lambda count: None) -> int:
    """Track and number every row that is not tracked, and return how many there were."""
    if not may_number(resource) or behind(resource) is not None:
        return 0
    return sum(_track(resource, keys) for keys in _keys(resource, on_batch))


def count_untracked(resource: SyncResource, *, on_batch: Callable[[int], None] = lambda count: None) -> int:
    """Return how many rows are not tracked."""
    return sum(len(set(keys) - _tracked(resource, keys)) for keys in _keys(resource, on_batch))


def _keys(resource: SyncResource, on_batch: Callable[[int], None]) -> Iterator[list[str]]:
    """Yield the local keys of all rows, in chunks that each begin where the last one ended."""
    last: Any = None
    while True:
        rows = resource.rows().order_by("pk")
        if last is not None:
            rows = rows.filter(pk__gt=last)
        keys: list[Any] = list(rows.values_list("pk", flat=True)[:BATCH])
        if not keys:
            return
        yield [str(key) for key in keys]
        last = keys[-1]
        on_batch(len(keys))


def _tracked(resource: SyncResource, keys: list[str]) -> set[str | None]:
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind, local_key__in=keys)
    return set(rows.values_list("local_key", flat=True))


def _track(resource: SyncResource, keys: list[str]) -> int:
    if not set(keys) - _tracked(resource, keys):
        return 0
    with transaction.atomic(using=resource.database):
        stored = lock_digest(resource)
        tracked = _tracked(resource, keys)
        new = []
        for key in keys:
            if key not in tracked:
                row = new_tracked(resource.kind, new_uuid())
                row.local_key = key
                new.append(row)
        number_new(resource, stored, new)
    return len(new)
