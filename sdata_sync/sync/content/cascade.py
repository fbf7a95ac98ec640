"""Find the rows that a deletion also deletes (``on_delete=CASCADE``), and defer received deletions because of them.

A deletion arrives before, after or without the changes that its source made together with it, for instance a contact
that was moved away from the deleted account. So a deletion that would delete other rows as well is deferred until this
node has all changes of those kinds that the source had when it sent the deletion. The digest advances meanwhile.

Of the rows that the deletion would delete even then,

* a resource that the source still has holds the deletion back, until the resource changes or an administrator decides;
* a resource that the source has never seen, or has deleted itself, is deleted with it. That is a change of this node,
  and it is recorded as a conflict with both versions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import QuerySet
from django.db.models.deletion import get_candidate_relations_to_delete
from django.utils import timezone

from ...core.digest import Digest
from ...core.state import SyncState
from ...exceptions import DeletionWaits, PayloadError
from ...kind import Kind, all_rows
from ...models import ConflictRecord, DeferredEntry, Peer, ScopedResource, TrackedResource
from ...registry import registry, resource_registered, resource_unregistered
from ..db.faults import name_of
from ..db.isolation import row_guard
from ..db.statements import chunks
from ..log.digests import load_digest
from ..log.events import send_signals
from ..log.keys import key_text
from ..log.marks import mark
from ..log.suppression import applying
from ..log.wakeup import wake_after_commit
from ..scope import scope_of
from .contents import LocalVersion
from .rows import existing_keys, read_instances_apart

if TYPE_CHECKING:
    from ...relations import Children
    from .conditions import Condition
    from .resolve import RowChange

#: The ``on_delete`` rules that keep the referring row; any other rule may delete it. The last two are of Django 6.1.
_KEEPING = ("PROTECT", "RESTRICT", "SET_NULL", "SET_DEFAULT", "DO_NOTHING", "DB_SET_NULL", "DB_SET_DEFAULT")
_KEEPING_RULES = tuple(rule for name in _KEEPING if (rule := getattr(models, name, None)) is not None)

#: Local keys by kind.
Taken = Mapping[Kind, set[str]]


def taken_along(kind: Kind, instances: Collection[models.Model]) -> Taken:
    """Return by kind the local keys of the rows that are deleted, or lose a child, when ``instances`` are deleted.

    ``instances`` themselves are not among them. Nothing is written.
    """
    found: dict[type[models.Model], set[Any]] = {kind.model: {instance.pk for instance in instances}}
    queue: list[tuple[type[models.Model], set[Any]]] = list(found.items())
    while queue:
        model, pks = queue.pop()
        keeps_parents = model is kind.model and bool(kind.registered_parents)
        for other, values in _next_rows(model, pks, kind.database, keeps_parents=keeps_parents):
            new = values - found.get(other, set())
            if new:
                found.setdefault(other, set()).update(new)
                queue.append((other, new))
    return _resources_of(kind, found, {instance.pk for instance in instances})


def parents_of_children(children: Kind, instances: Collection[models.Model]) -> Taken:
    """Return by kind the local keys of the parents of ``instances``, which are rows of the child kind ``children``."""
    pks = [instance.pk for instance in instances]
    return {
        owner: set(_owners(owner, relation, pks, (), children.database))
        for owner, relation in registry.parents_of(children.model)
    }


def without_referrers(kind: Kind, instances: Sequence[models.Model]) -> list[models.Model]:
    """Return those of ``instances`` that no foreign key which would cascade refers to, by one query for each.

    Return none of them for a model with parent models or generic relations, because one query cannot tell there.
    """
    model = kind.model
    if model._meta.parents or any(True for _ in _generic_relations(model)):
        return []
    referred: set[Any] = set()
    pks = {instance.pk for instance in instances}
    for relation in _cascading(model):
        field, target = relation.field, relation.field.target_field
        values = {getattr(instance, target.attname): instance.pk for instance in instances}
        for chunk in chunks(_values(model, pks, target, kind.database)):
            rows = all_rows(field.model, kind.database).filter(**{f"{field.attname}__in": chunk})
            referred.update(values.get(value) for value in rows.values_list(field.attname, flat=True).distinct())
    return [instance for instance in instances if instance.pk not in referred]


def are_kept_referring(kind: Kind, instances: Collection[models.Model]) -> bool:
    """Return True if rows with ``on_delete=DO_NOTHING`` refer to ``instances``: the deletion may be refused."""
    pks = {instance.pk for instance in instances}
    relations: Iterable[Any] = get_candidate_relations_to_delete(kind.model._meta)
    for relation in relations:
        field = relation.field
        if relation.on_delete is models.DO_NOTHING and field.db_constraint:
            for chunk in chunks(_values(kind.model, pks, field.target_field, kind.database)):
                if all_rows(field.model, kind.database).filter(**{f"{field.attname}__in": chunk}).exists():
                    return True
    return False


def kinds_within_reach(kind: Kind) -> frozenset[str]:
    """Return the kinds whose rows or children a deletion of ``kind`` may also delete, by this node's models."""
    return _kinds_within_reach(kind.model)


@cache
def _kinds_within_reach(root: type[models.Model]) -> frozenset[str]:
    reached, queue, kinds = {root}, [root], set[str]()
    while queue:
        model = queue.pop()
        for other in _next_models(model):
            kinds.update(owner.name for owner, _ in registry.parents_of(other) if owner.model is not root)
            if (target := registry.of_model(other)) is not None:
                kinds.add(target.name)
            if other not in reached:
                reached.add(other)
                queue.append(other)
    return frozenset(kinds)


def _forget_reach(**kwargs: Any) -> None:
    _kinds_within_reach.cache_clear()


resource_registered.connect(_forget_reach, dispatch_uid="sdata_sync.reach")
resource_unregistered.connect(_forget_reach, dispatch_uid="sdata_sync.reach")


def _next_models(model: type[models.Model]) -> Iterator[type[models.Model]]:
    for relation in _cascading(model):
        yield relation.field.model._meta.concrete_model
    for field in _generic_relations(model):
        yield field.related_model._meta.concrete_model
    yield from (parent._meta.concrete_model for parent in model._meta.parents)  # type: ignore[misc]


def _next_rows(
    model: type[models.Model], pks: set[Any], using: str, *, keeps_parents: bool
) -> Iterator[tuple[type[models.Model], set[Any]]]:
    """Yield models and primary keys of rows that are deleted directly with the rows ``pks`` of ``model``.

    With ``keeps_parents`` the rows of its parent models stay.
    """
    for relation in _cascading(model):
        if keeps_parents and relation.model in model._meta.get_parent_list():
            continue
        field = relation.field
        for chunk in chunks(_values(model, pks, field.target_field, using)):
            rows = all_rows(field.model, using).filter(**{f"{field.attname}__in": chunk})
            yield field.model._meta.concrete_model, set(rows.values_list("pk", flat=True))
    for field in _generic_relations(model):
        for chunk in chunks(pks):
            rows = field.bulk_related_objects([model(pk=pk) for pk in chunk], using)
            yield field.related_model._meta.concrete_model, set(rows.values_list("pk", flat=True))
    for parent, link in model._meta.parents.items():
        if link is not None and not keeps_parents:
            yield parent._meta.concrete_model, set(_values(model, pks, link, using))  # type: ignore[misc]


def _values(model: type[models.Model], pks: set[Any], column: Any, using: str) -> list[Any]:
    if column.primary_key and column.model._meta.concrete_model in (model, *model._meta.get_parent_list()):
        return list(pks)
    values: list[Any] = []
    for chunk in chunks(pks):
        values += all_rows(model, using).filter(pk__in=chunk).values_list(column.attname, flat=True)
    return [value for value in values if value is not None]


def _cascading(model: type[models.Model]) -> Iterator[Any]:
    relations: Iterable[Any] = get_candidate_relations_to_delete(model._meta)
    return (relation for relation in relations if not _is_keeping(relation.on_delete))


def _is_keeping(rule: Any) -> bool:
    is_set = hasattr(rule, "deconstruct") and rule.deconstruct()[0] == "django.db.models.SET"
    return is_set or rule in _KEEPING_RULES


def _generic_relations(model: type[models.Model]) -> Iterator[Any]:
    return (field for field in model._meta.private_fields if hasattr(field, "bulk_related_objects"))


def _resources_of(
    kind: Kind, rows: Mapping[type[models.Model], set[Any]], roots: Collection[Any]
) -> dict[Kind, set[str]]:
    taken: dict[Kind, set[str]] = defaultdict(set)
    for model, pks in rows.items():
        others = pks.difference(roots) if model is kind.model else pks
        target = registry.of_model(model)
        if target is not None and others:
            taken[target].update(key_text(target.model._meta.pk, pk) for pk in others)
        for owner, children in registry.parents_of(model):
            gone = rows.get(owner.model, set())
            keys = _owners(owner, children, pks, gone, kind.database)
            if keys:
                taken[owner].update(keys)
    return {target: keys for target, keys in taken.items() if keys}


def _owners(
    owner: Kind, children: Children, pks: Iterable[Any], gone: Collection[Any], using: str
) -> Iterator[str] | list[str]:
    """Return the local keys of the parents of the children ``pks``, without ``gone``: those are deleted themselves."""
    link, pk = children.link, owner.model._meta.pk
    target = link.target_field
    keys: list[str] = []
    for chunk in chunks(pks):
        values = set(all_rows(children.kind.model, using).filter(pk__in=chunk).values_list(link.attname, flat=True))
        if not target.primary_key:
            parents = all_rows(owner.model, using).filter(**{f"{target.attname}__in": values})
            values = set(parents.values_list("pk", flat=True))
        keys += [key_text(pk, value) for value in values if value is not None and value not in gone]
    return keys


#: The maximum number of rows that the reason of a deferred deletion names.
NAMED_ROWS = 3
#: The rule in the conflict record of a resource that a deletion has also deleted.
CASCADE_RULE = "deleted with what it referred to"


def hold_back(kind: Kind, deletions: Sequence[RowChange]) -> None:
    """Set a ``DeletionWaits`` error on each deletion that must wait, and ``taken`` on the rest."""
    concerned = [change for change in deletions if change.error is None]
    if not concerned:
        return
    try:
        with row_guard(kind.database):
            if not taken_along(kind, [change.instance for change in concerned]):
                return
    except PayloadError:
        pass  # the relations of one of them cannot be read; the loop below finds which one
    going = {change.local_key for change in concerned}
    for change in concerned:
        try:
            with row_guard(kind.database):
                _examine(kind, change, going)
        except PayloadError as error:
            change.error = error


def hold_back_children(children: Kind, deletions: Sequence[RowChange]) -> None:
    """Set a ``PayloadError`` on each deletion of a child that would delete other resources than its parent.

    The parent's version is deferred with it. It is applied when no row of this node refers to the child any more.
    """
    if not kinds_within_reach(children) or not _taken_beside_parents(children, deletions):
        return
    for change in deletions:
        taken = _taken_beside_parents(children, [change])
        if taken:
            names = [name for kind, keys in taken.items() for name in _names(kind, sorted(keys))]
            change.error = PayloadError(
                f"The deletion of {children.element_name} {change.instance.pk} would also delete rows that refer to "
                f"it: {_listed(names)}. Delete or change these rows; then the next retry applies the entry.",
                public="Rows that refer to it would be deleted too.",
            )


def _taken_beside_parents(children: Kind, deletions: Sequence[RowChange]) -> Taken:
    instances = [change.instance for change in deletions]
    taken, parents = taken_along(children, instances), parents_of_children(children, instances)
    beside = {kind: keys - parents.get(kind, set()) for kind, keys in taken.items()}
    return {kind: keys for kind, keys in beside.items() if keys}


def _examine(kind: Kind, change: RowChange, going: set[str]) -> None:
    taken = dict(taken_along(kind, [change.instance]))
    taken[kind] = taken.get(kind, set()) - going
    change.taken = {other: keys for other, keys in taken.items() if keys}
    change.waiting = {other: keys & _waiting_deletions(other, keys) for other, keys in change.taken.items()}
    if change.condition is not None:
        change.error = _reason_to_wait(change.condition, change)


def _waiting_deletions(kind: Kind, keys: Collection[str]) -> set[str]:
    """Return those of the rows ``keys`` that have a deferred deletion of their own."""
    entries = waiting_deletions(kind)
    found: set[str] = set()
    for chunk in chunks(sorted(keys)):
        rows = entries.filter(resource__local_key__in=chunk).values_list("resource__local_key", flat=True)
        found.update(key for key in rows if key is not None)
    return found


def waiting_deletions(kind: Kind) -> QuerySet[DeferredEntry]:
    """Return the deferred deletions of a kind that are retried, without withdrawals, which concern this node only."""
    entries = DeferredEntry.objects.using(kind.database).filter(
        resource__kind=kind.name, is_deleted=True, is_discarded=False
    )
    return entries.exclude(application_code=PayloadError.WITHDRAWN)


def _reason_to_wait(condition: Condition, change: RowChange) -> DeletionWaits | None:
    lacking = condition.lacking({kind.name for kind in change.taken})
    if lacking:
        return DeletionWaits(
            f"It would take rows of {', '.join(lacking)} along. It waits for the changes of these kinds that "
            f"{condition.origin or 'its source'} had when it deleted it.",
            condition=condition,
        )
    held: list[str] = []
    for kind, keys in change.taken.items():
        held += _rows_of_source(kind, keys - change.waiting[kind], condition)
    if not held:
        return None
    return DeletionWaits(
        f"It would also delete rows that its source still has: {_listed(held)}. Apply the deletion or keep the row, "
        "in the admin.",
        public="It would also delete rows that its source still has.",
        condition=condition,
    )


def _rows_of_source(kind: Kind, keys: Collection[str], condition: Condition) -> list[str]:
    """Return the names of those of the rows ``keys`` that the source of ``condition`` still has."""
    seen = condition.seen.get(kind.name) or Digest()
    tracked = _within_partial(kind, _tracked(kind, keys), condition.origin)
    urls = _endpoint_urls(kind, tracked)
    still = [row for row in tracked if _still_has(seen, urls, kind, row)]
    return _names(kind, [row.row_key for row in still])


def _names(kind: Kind, keys: Sequence[str]) -> list[str]:
    """Return the names of the rows ``keys``; a row that a reason does not show is named by kind and key only."""
    instances, _ = read_instances_apart(kind, list(keys[:NAMED_ROWS]))
    return [name_of(instances[key]) if key in instances else f"{kind.name}({key!r})" for key in keys]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_ROWS} more" if len(names) > NAMED_ROWS else ""
    return f"{', '.join(names[:NAMED_ROWS])}{more}"


def _within_partial(kind: Kind, tracked: list[TrackedResource], origin: str) -> list[TrackedResource]:
    """Return those of ``tracked`` that are in the scope of the source, which may have a partial replica."""
    peer = Peer.of_endpoint(origin)
    if peer is None or scope_of(kind, peer) is None:
        return tracked
    had: set[int] = set()
    for chunk in chunks(row.pk for row in tracked):
        rows = ScopedResource.objects.using(kind.database).filter(peer=peer.pk, is_withdrawn=False)
        had.update(rows.filter(resource__in=chunk).values_list("resource_id", flat=True))
    return [row for row in tracked if row.pk in had]


def _still_has(seen: Digest, urls: Mapping[int, str], kind: Kind, row: TrackedResource) -> bool:
    """Return True if a source with the digest ``seen`` has the present version of ``row`` or still an earlier one."""
    if _contains(seen, urls, row.endpoint_id, row.tick):
        return True
    return _contains(seen, urls, row.first_endpoint_id, row.first_tick) and not _was_deleted_there(kind, row)


def _contains(seen: Digest, urls: Mapping[int, str], endpoint: int | None, tick: int | None) -> bool:
    if endpoint is None or tick is None:
        return False
    return seen.contains(SyncState(endpoint=urls.get(endpoint, ""), tick=tick, stamp=0))


def _was_deleted_there(kind: Kind, row: TrackedResource) -> bool:
    """Return True if a deletion of ``row`` was received and lost the conflict against the present version.

    The source lacks the present version, so it does not know yet that its deletion has lost. After a later change of
    the row, this cannot be told any more.
    """
    lost = ConflictRecord.objects.using(kind.database).filter(resource=row.pk, remote_won=False, remote_payload="")
    return lost.filter(local_stamp=row.stamp).exists()


def _tracked(kind: Kind, keys: Collection[str]) -> list[TrackedResource]:
    rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name)
    return [row for chunk in chunks(sorted(keys)) for row in rows.filter(local_key__in=chunk).order_by("pk")]


def _endpoint_urls(kind: Kind, tracked: Iterable[TrackedResource]) -> dict[int, str]:
    stored = load_digest(kind)
    wanted = {pk for row in tracked for pk in (row.endpoint_id, row.first_endpoint_id) if pk is not None}
    return {pk: stored.endpoint_url(pk) for pk in wanted}


@dataclass(kw_only=True, eq=False)
class TakenRecord:
    """Hold the conflict record of one resource that a deletion also deletes, made before the deletion."""

    kind: Kind
    tracked: TrackedResource
    record: ConflictRecord


def prepare_records(kind: Kind, change: RowChange) -> list[TakenRecord]:
    """Return the records of the resources that the deletion ``change`` will delete; ``confirm_taken`` stores them.

    Rows that are not tracked yet are marked. A resource with a deferred deletion of its own gets no record: it is
    deleted by that deletion.
    """
    deletion = change.state or SyncState(endpoint=kind.endpoint, tick=0, stamp=0)
    prepared: list[TakenRecord] = []
    for other, keys in change.taken.items():
        concerned = keys - change.waiting.get(other, set())
        ensure_tracked(other, concerned)
        tracked = _tracked(other, concerned)
        instances, _ = read_instances_apart(other, [row.row_key for row in tracked])
        for row in tracked:
            record = _record(other, row, instances, deletion)
            prepared.append(TakenRecord(kind=other, tracked=row, record=record))
    return prepared


def ensure_tracked(kind: Kind, keys: Collection[str]) -> None:
    """Mark those of the rows ``keys`` that are not tracked yet, so that their deletion can be recorded."""
    tracked = {row.local_key for row in _tracked(kind, keys)}
    mark(kind.database, kind.name, sorted(set(keys) - tracked))


def confirm_taken(prepared: Sequence[TakenRecord]) -> None:
    """Record resources that a deletion has deleted as changes of this node, each as a conflict with both versions."""
    by_kind: dict[Kind, list[TakenRecord]] = {}
    for item in prepared:
        by_kind.setdefault(item.kind, []).append(item)
    for kind, items in by_kind.items():
        left = existing_keys(kind, [item.tracked.row_key for item in items])
        gone = [item for item in items if item.tracked.local_key not in left]
        changed = [item.tracked.row_key for item in items]  # also the parents that lost a child
        mark(kind.database, kind.name, sorted(changed))
        wake_after_commit(kind.name, kind.database)
        # A resource that never had a tick gets one, so that the record of its deletion is kept.
        unknown = [item.tracked.pk for item in gone if item.tracked.tick is None]
        TrackedResource.objects.using(kind.database).filter(pk__in=unknown).update(restamp=True)
        records = [item.record for item in gone]
        ConflictRecord.objects.using(kind.database).bulk_create(records)
        send_signals(kind, records, [])


@contextmanager
def applying_waiting(change: RowChange) -> Iterator[None]:
    """Inside the ``with`` block, do not capture the deletion of rows that have a deferred deletion of their own."""
    with ExitStack() as stack:
        for kind, keys in change.waiting.items():
            if keys:
                stack.enter_context(applying(kind.name, keys=keys))
        yield


def _record(
    kind: Kind, tracked: TrackedResource, instances: Mapping[str, object], deletion: SyncState
) -> ConflictRecord:
    instance = instances.get(tracked.row_key)
    local = LocalVersion(kind, tracked, instance, allocate=True)  # type: ignore[arg-type]
    url = tracked.endpoint.url if tracked.endpoint is not None else kind.endpoint
    return ConflictRecord(
        resource=tracked,
        decided_at=timezone.now(),
        remote_won=True,
        rule=CASCADE_RULE,
        local_endpoint=url,
        local_stamp=tracked.stamp,
        local_user=tracked.user[:150],
        local_payload=local.payload,
        remote_endpoint=deletion.endpoint,
        remote_stamp=deletion.stamp,
        remote_user=deletion.user[:150],
        remote_payload="",
    )
