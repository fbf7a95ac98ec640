"""Which parent has a child that two of them name: one was changed here, the other there, and the feeds cross.

The parent that was changed later has it, at every node, whatever came first. The other one's version is then without
it: nobody has changed that one, and no number is given for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from ...core.state import SyncState, is_later
from ...models import TrackedResource
from ...relations import Children, ReceivedChildren
from ...resources import SyncResource
from ..changes import RowChange
from ..marks import key_text
from .contents import read_contents


class Claims:
    """The parents that are written together, by local key, and those that stand."""

    def __init__(
        self, owner: SyncResource, relation: Children, parents: Mapping[str, RowChange], instances: Mapping[str, Any]
    ) -> None:
        self._owner = owner
        self._parents = parents
        link, pk = relation.link, owner.model._meta.pk
        self._name = relation.name
        #: The parent that each child has now.
        self._present: dict[str, str] = {}
        if link.target_field.primary_key:
            self._present = {key: key_text(pk, getattr(row, link.attname)) for key, row in instances.items()}
        self._named: dict[UUID, list[str]] = {}
        for parent, change in parents.items():
            received = change.lists[self._name]
            assert isinstance(received, ReceivedChildren)
            for child in received.children:
                if child.uuid is not None and not child.is_deleted:
                    self._named.setdefault(child.uuid, []).append(parent)
        self._states = self._standing_states()

    def _standing_states(self) -> dict[str, SyncState]:
        keys = set(self._present.values()) - self._parents.keys()
        rows = TrackedResource.objects.using(self._owner.database).filter(
            kind=self._owner.kind, local_key__in=keys, tick__isnull=False
        )
        return (
            {
                row.local_key or "": SyncState(
                    endpoint=row.endpoint.url if row.endpoint else "", tick=row.tick or 0, stamp=row.stamp
                )
                for row in rows.select_related("endpoint")
            }
            if keys
            else {}
        )

    def may_have(self, parent: str, uuid: UUID | None, key: str | None) -> bool:
        """Tell whether ``parent`` has the child, which ``key`` is if it stands here."""
        state = self._parents[parent].state
        if uuid is None or state is None:
            return True
        others = [other for other in self._named.get(uuid, ()) if other != parent]
        rivals = [self._parents[other].state for other in others]
        holder = self._present.get(key or "")
        if holder is not None and holder not in self._parents:
            rivals.append(self._states.get(holder))
        return not any(rival is not None and _is_after(rival, state) for rival in rivals)

    def robbed_by(self, parent: str, key: str | None) -> set[str]:
        """Return the parent that loses the child to ``parent`` and is not written itself."""
        holder = self._present.get(key or "")
        return set() if holder is None or holder == parent or holder in self._parents else {holder}


def _is_after(one: SyncState, other: SyncState) -> bool:
    if one.stamp == other.stamp and one.endpoint.lower() == other.endpoint.lower():
        return one.tick > other.tick
    return is_later(one, other)


def refresh_etags(owner: SyncResource, keys: Iterable[str]) -> None:
    """Note that the present contents of rows are those of the versions that they have."""
    wanted = list(keys)
    if not wanted:
        return
    rows = TrackedResource.objects.using(owner.database).filter(kind=owner.kind, local_key__in=wanted)
    tracked = list(rows.filter(mark__isnull=True, is_deferred=False))
    contents, _ = read_contents(owner, tracked)
    for row in tracked:
        texts = contents.get(row.local_key or "")
        if texts is not None:
            rows.filter(pk=row.pk).update(etag=owner.etag(texts, row.extra))
