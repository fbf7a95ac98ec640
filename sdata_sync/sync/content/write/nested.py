"""Write associations and children of received rows, in the transaction that writes the rows.

Two parents can name the same child if one was changed at this node and the other at another node. The parent that was
changed later has the child, at every node, in whatever order the feeds arrive (``ChildOwnership``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from ....core.state import SyncState, is_later
from ....core.text import fold
from ....exceptions import PayloadError
from ....kind import Kind
from ....models import ChildResource, TrackedResource
from ....models.tracked import NO_KEY
from ....relations import Association, Children, ReceivedChild, ReceivedChildren, ReceivedList
from ...bounds import believed_stamp
from ...db.clock import now
from ...db.statements import chunks
from ...log.keys import key_text
from ...log.marks import new_uuid
from ...log.suppression import applying
from ..children import identities, read_children
from ..contents import read_contents
from ..references import members, set_members
from ..resolve import RowAction, RowChange, members_of, prepare_row
from ..rows import read_instances


class ChildOwnership:
    """Decide which parent has a child, among the parents that are written together and the present parents."""

    def __init__(
        self, owner: Kind, relation: Children, parents: Mapping[str, RowChange], instances: Mapping[str, Any]
    ) -> None:
        self._owner = owner
        self._parents = parents
        link, pk = relation.link, owner.model._meta.pk
        self._name = relation.name
        #: The local key of the present parent of each child, by the child's local key.
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
            kind=self._owner.name, local_key__in=keys, tick__isnull=False
        )
        return (
            {
                row.row_key: SyncState(
                    endpoint=row.endpoint.url if row.endpoint else "", tick=row.tick or 0, stamp=row.stamp
                )
                for row in rows.select_related("endpoint")
            }
            if keys
            else {}
        )

    def may_have(self, parent: str, uuid: UUID | None, key: str | None) -> bool:
        """Return True if no parent that was changed later has the child; ``key`` is the child's local key, if any."""
        state = self._parents[parent].state
        if uuid is None or state is None:
            return True
        others = [other for other in self._named.get(uuid, ()) if other != parent]
        rivals = [self._parents[other].state for other in others]
        holder = self._present.get(NO_KEY if key is None else key)
        if holder is not None and holder not in self._parents:
            rivals.append(self._states.get(holder))
        return not any(rival is not None and _is_after(rival, state) for rival in rivals)

    def previous_parents(self, parent: str, key: str | None) -> set[str]:
        """Return the present parent, if it loses the child to ``parent`` and is not written itself."""
        holder = self._present.get(NO_KEY if key is None else key)
        return set() if holder is None or holder == parent or holder in self._parents else {holder}


def _is_after(one: SyncState, other: SyncState) -> bool:
    one, other = believed_stamp(one, now()), believed_stamp(other, now())
    if one.stamp == other.stamp and fold(one.endpoint) == fold(other.endpoint):
        return one.tick > other.tick
    return is_later(one, other)


def refresh_etags(owner: Kind, keys: Iterable[str]) -> None:
    """Store the etags of the present contents of the rows ``keys``, so that these are no local edits."""
    wanted = list(keys)
    if not wanted:
        return
    rows = TrackedResource.objects.using(owner.database).filter(kind=owner.name, local_key__in=wanted)
    tracked = list(rows.filter(mark__isnull=True, is_deferred=False))
    contents, _ = read_contents(owner, tracked, allocate=True)
    for row in tracked:
        texts = contents.get(row.row_key)
        if texts is not None:
            rows.filter(pk=row.pk).update(etag=owner.etag(texts, row.extra))


#: The function ``writer.write_rows``, which calls this module for associations and children.
WriteRows = Callable[[Kind, Sequence[RowChange]], None]


def write_inside(kind: Kind, changes: Sequence[RowChange], write_rows: WriteRows) -> None:
    """Write associations and children of rows that have just been written, in the same transaction.

    Raises:
        PayloadError: a child cannot be written; the parent must not be written either.
    """
    keys = [change.local_key for change in changes]
    with applying(kind.name, keys=keys):
        for relation in kind.relations:
            concerned = [change for change in changes if relation.name in change.lists]
            if concerned and isinstance(relation, Association):
                _write_members(kind, relation, concerned)
            elif concerned and isinstance(relation, Children):
                _ChildrenWriter(relation, kind, concerned).write(write_rows)


def _write_members(kind: Kind, relation: Association, changes: Iterable[RowChange]) -> None:
    by_key = {change.local_key: change for change in changes}
    present = members(kind, relation, by_key)
    for key, change in by_key.items():
        received = change.lists[relation.name]
        assert isinstance(received, ReceivedList)
        if relation.is_symmetrical:  # the write of another row may have changed the members of this one
            present = members(kind, relation, [key])
        standing = set(present.get(key, ()))
        wanted = members_of(kind.database, relation, received, present, key, change.known, change.uuid)
        if wanted != standing:
            with applying(kind.name, keys={key, *wanted, *standing} if relation.is_symmetrical else {key}):
                set_members(kind, relation, key, wanted)


class _ChildrenWriter:
    """Write the children of several parents together."""

    def __init__(self, relation: Children, owner: Kind, parents: Sequence[RowChange]) -> None:
        self._relation = relation
        self._owner = owner
        self._kind = relation.kind
        self._parents = {change.local_key: change for change in parents}
        #: The children that stay or are added, by parent: uuid, unknown elements (XML), and change of the row.
        self._kept: list[tuple[UUID, str, RowChange]] = []
        self._deleted: dict[str, RowChange] = {}
        #: The parents that are not written themselves and lose a child to a parent that is.
        self._previous_parents: set[str] = set()

    def write(self, write_rows: WriteRows) -> None:
        standing, _ = read_children(self._relation, list(self._parents))
        keys = self._keys_by_uuid(standing)
        instances = read_instances(self._kind, set(keys.values()) | set(standing))
        claims = ChildOwnership(self._owner, self._relation, self._parents, instances)
        for parent, change in self._parents.items():
            mine = {key for key, of in standing.items() if of == parent}
            self._decide(parent, change, mine, keys, instances, claims)
        for _, _, kept in self._kept:  # removed from one parent, added to another
            self._deleted.pop(str(kept.instance.pk), None)
        deletions, kept_rows = list(self._deleted.values()), [change for _, _, change in self._kept]
        # Deletions come first: a new child may have a unique value of a deleted one.
        write_rows(self._kind, deletions)
        self._raise_first(deletions)
        self._write_kept(kept_rows, write_rows)
        self._store_identities()
        refresh_etags(self._owner, self._previous_parents)

    def _write_kept(self, changes: list[RowChange], write_rows: WriteRows) -> None:
        try:
            with transaction.atomic(using=self._kind.database):
                write_rows(self._kind, changes)
                self._raise_first(changes)
            return
        except PayloadError:
            standing = [change for change in changes if not change.is_new]
            if not standing:
                raise
        # The children may have exchanged unique values. So their rows are deleted and all are created again under the
        # same primary keys.
        pks = [change.instance.pk for change in standing]
        self._kind.rows().filter(pk__in=pks)._raw_delete(self._kind.database)
        for change in changes:
            change.error, change.action = None, RowAction.CREATE
            change.instance._state.adding = True
        write_rows(self._kind, changes)
        self._raise_first(changes)

    def _raise_first(self, changes: Iterable[RowChange]) -> None:
        for change in changes:
            if change.error is not None:
                raise self._failure(change.error)

    def _keys_by_uuid(self, standing: dict[str, str]) -> dict[UUID, str]:
        """Return the local keys of the children by uuid, also of children that have another parent until now."""
        keys = {uuid: key for key, (uuid, _) in identities(self._kind, standing, allocate=True).items()}
        received = (self._received(change).children for change in self._parents.values())
        wanted = {child.uuid for children in received for child in children if child.uuid}
        known = ChildResource.objects.using(self._kind.database).filter(kind=self._kind.name)
        for chunk in chunks(wanted - keys.keys()):
            keys.update(known.filter(uuid__in=chunk).values_list("uuid", "local_key"))
        return keys

    def _received(self, change: RowChange) -> ReceivedChildren:
        received = change.lists[self._relation.name]
        assert isinstance(received, ReceivedChildren)
        return received

    def _decide(
        self,
        parent: str,
        change: RowChange,
        mine: set[str],
        keys: dict[UUID, str],
        instances: dict[str, Any],
        claims: ChildOwnership,
    ) -> None:
        received = self._received(change)
        going = set(mine) if received.is_complete else set()
        for child in received.children:
            key = keys.get(child.uuid) if child.uuid else None
            if child.is_deleted:
                going.update({NO_KEY if key is None else key} & mine)
            elif claims.may_have(parent, child.uuid, key):
                going.discard(NO_KEY if key is None else key)
                self._keep(change, child, instances.get(NO_KEY if key is None else key))
                self._previous_parents |= claims.previous_parents(parent, key)
        for key in going & instances.keys():
            self._deleted[key] = RowChange(instance=instances[key], action=RowAction.DELETE)

    def _keep(self, parent: RowChange, child: ReceivedChild, instance: Any) -> None:
        try:
            change = prepare_row(self._kind, instance, child.reading, parent.known)
            if change.pending:  # a child has no sync state, so its reference cannot be pending without the parent
                raise self._waiting(change)
        except PayloadError as error:
            raise self._failure(error) from error
        link = self._relation.link
        value = getattr(parent.instance, link.target_field.attname)
        setattr(change.instance, link.attname, value)
        change.values = {**change.values, link.attname: value}
        self._kept.append((child.uuid or new_uuid(), child.reading.extra, change))

    def _waiting(self, change: RowChange) -> PayloadError:
        waits_for = [target for targets in change.pending.values() for target in targets]
        path = f"{self._kind.element_name}/{next(iter(change.pending))}"
        kind, uuid = waits_for[0]
        return PayloadError(
            f"In {path}: it refers to {kind} {uuid}, which has not arrived yet.", payload_path=path, waits_for=waits_for
        )

    def _failure(self, error: PayloadError) -> PayloadError:
        path = f"{self._relation.name}/{error.payload_path}".rstrip("/")
        said = f"In {self._relation.name}: "
        return PayloadError(
            f"{said}{error}", payload_path=path, public=f"{said}{error.public}", waits_for=error.waits_for
        )

    def _store_identities(self) -> None:
        known = ChildResource.objects.using(self._kind.database).filter(kind=self._kind.name)
        for chunk in chunks(self._deleted):
            known.filter(local_key__in=chunk).delete()
        rows = {
            change.local_key: ChildResource(kind=self._kind.name, uuid=uuid, local_key=change.local_key, extra=extra)
            for uuid, extra, change in self._kept
        }
        for chunk in chunks(rows):
            present = known.filter(local_key__in=chunk).values_list("local_key", "uuid", "extra")
            unchanged = {key for key, uuid, extra in present if (uuid, extra) == (rows[key].uuid, rows[key].extra)}
            stale = [rows[key] for key in chunk if key not in unchanged]
            known.filter(local_key__in=[row.local_key for row in stale]).delete()
            known.filter(uuid__in=[row.uuid for row in stale]).delete()
            ChildResource.objects.using(self._kind.database).bulk_create(stale)
