"""First contact: the rows from before the app was installed, tracked and numbered a thousand at a time."""

from collections.abc import Callable
from functools import partial

from ..models import Digest as DigestRow
from ..resources import SyncResource
from .digests import lock_digest
from .hearing import may_number
from .isolation import atomically_by_row
from .log import new_tracked
from .marks import new_uuid
from .numbering import number_new
from .rejoining import behind
from .untracked import untracked_keys, without_tracked


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
    return sum(_track(resource, keys) for keys in untracked_keys(resource, on_batch=on_batch))


def count_untracked(resource: SyncResource, *, on_batch: Callable[[int], None] = lambda count: None) -> int:
    """Return how many rows are not tracked."""
    return sum(len(keys) for keys in untracked_keys(resource, on_batch=on_batch))


def _track(resource: SyncResource, keys: list[str]) -> int:
    if not keys:
        return 0
    return atomically_by_row(resource.database, partial(_track_under_lock, resource, keys))


def _track_under_lock(resource: SyncResource, keys: list[str]) -> int:
    stored = lock_digest(resource)
    new = []
    for key in without_tracked(resource, keys):  # once more, under the lock
        row = new_tracked(resource.kind, new_uuid())
        row.local_key = key
        new.append(row)
    number_new(resource, stored, new)
    return len(new)
