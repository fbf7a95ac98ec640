"""Which uuid belongs to which row, of any kind."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from uuid import UUID

from ...models import TrackedResource
from ...relations import KEY
from ...resources import SyncResource
from ..isolation import override
from ..marks import mark
from ..statements import chunks
from ..wakeup import wake_after_commit

#: How often a uuid may have been replaced by another, one after the other.
MAX_ALIASES = 10


_only_looking: ContextVar[bool] = ContextVar("sdata_sync_only_looking", default=False)


def only_looking() -> AbstractContextManager[None]:
    """Give nothing a uuid inside: a resource has none until it is linked or sent (SData sync 1.2)."""
    return override(_only_looking, True)


def is_only_looking() -> bool:
    """Tell whether nothing is to get a uuid."""
    return _only_looking.get()


def uuids_of(resource: SyncResource, keys: Iterable[str]) -> dict[str, UUID | str]:
    """Return the uuids of rows by local key; a row that is not tracked yet is, from now on.

    While one is ``only_looking``, the local key stands for the uuid of such a row.
    """
    wanted = set(keys)
    found: dict[str, UUID | str] = dict(_tracked(resource, wanted))
    missing = wanted - found.keys()
    if missing and is_only_looking():
        found.update((key, f"{KEY}{key}") for key in missing)
    elif missing:
        mark(resource.database, resource.kind, sorted(missing))
        wake_after_commit(resource.kind, resource.database)
        found.update(_tracked(resource, missing))
    return found


def _tracked(resource: SyncResource, keys: Collection[str]) -> dict[str, UUID]:
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind)
    found: dict[str, UUID] = {}
    for chunk in chunks(keys):
        found.update(rows.filter(local_key__in=chunk).values_list("local_key", "uuid"))  # type: ignore[arg-type]
    return found


def keys_of(resource: SyncResource, uuids: Iterable[UUID]) -> dict[UUID, str]:
    """Return the local keys of rows by uuid, also by one that was replaced; what has no row here is absent."""
    rows = TrackedResource.objects.using(resource.database).filter(kind=resource.kind)
    found: dict[UUID, str] = {}
    #: What is asked for, by the uuid that it has now.
    wanted: dict[UUID, list[UUID]] = {uuid: [uuid] for uuid in uuids}
    for _ in range(MAX_ALIASES):
        following: dict[UUID, list[UUID]] = {}
        for chunk in chunks(wanted):
            known = rows.filter(uuid__in=chunk).values_list("uuid", "local_key", "replaced_by")
            for uuid, key, replacement in known:
                if key is not None:
                    found.update(dict.fromkeys(wanted[uuid], key))
                elif replacement is not None:
                    following.setdefault(replacement, []).extend(wanted[uuid])
        wanted = following
        if not wanted:
            break
    return found
