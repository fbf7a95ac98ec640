"""What a deletion takes along at this node: the rows that ``on_delete=CASCADE`` deletes with it, over any distance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from django.db import models
from django.db.models.deletion import get_candidate_relations_to_delete

from ..registry import registry, resource_registered, resource_unregistered
from ..relations import Children
from ..resources import SyncResource, all_rows
from .marks import key_text
from .statements import chunks

#: Rules that are known to leave the referring row; every other one may delete it. The last two are Django 6.1's.
_KEEPING = ("PROTECT", "RESTRICT", "SET_NULL", "SET_DEFAULT", "DO_NOTHING", "DB_SET_NULL", "DB_SET_DEFAULT")
_KEEPING_RULES = tuple(rule for name in _KEEPING if (rule := getattr(models, name, None)) is not None)

#: Local keys by resource.
Taken = Mapping[SyncResource, set[str]]


def taken_along(resource: SyncResource, instances: Collection[models.Model]) -> Taken:
    """Return the resources whose rows, or whose children's rows, are deleted together with ``instances``.

    The resources of ``instances`` themselves are not among them. Nothing is written.
    """
    found: dict[type[models.Model], set[Any]] = {resource.model: {instance.pk for instance in instances}}
    queue: list[tuple[type[models.Model], set[Any]]] = list(found.items())
    while queue:
        model, pks = queue.pop()
        for other, values in _next_rows(model, pks, resource.database):
            new = values - found.get(other, set())
            if new:
                found.setdefault(other, set()).update(new)
                queue.append((other, new))
    return _resources_of(resource, found, {instance.pk for instance in instances})


def parents_of_children(children: SyncResource, instances: Collection[models.Model]) -> Taken:
    """Return the resources that the rows ``instances`` of ``children`` are children of."""
    pks = [instance.pk for instance in instances]
    return {
        owner: set(_owners(owner, relation, pks, (), children.database))
        for owner, relation in registry.parents_of(children.model)
    }


def without_referrers(resource: SyncResource, instances: Sequence[models.Model]) -> list[models.Model]:
    """Return those of ``instances`` that take nothing along, as far as one query for each relation tells."""
    model = resource.model
    if model._meta.parents or any(True for _ in _generic_relations(model)):
        return []
    referred: set[Any] = set()
    pks = {instance.pk for instance in instances}
    for relation in _cascading(model):
        field, target = relation.field, relation.field.target_field
        values = {getattr(instance, target.attname): instance.pk for instance in instances}
        for chunk in chunks(_values(model, pks, target, resource.database)):
            rows = all_rows(field.model, resource.database).filter(**{f"{field.attname}__in": chunk})
            referred.update(values.get(value) for value in rows.values_list(field.attname, flat=True).distinct())
    return [instance for instance in instances if instance.pk not in referred]


def are_kept_referring(resource: SyncResource, instances: Collection[models.Model]) -> bool:
    """Return True if rows with ``on_delete=DO_NOTHING`` refer to ``instances``: the deletion may be refused."""
    pks = {instance.pk for instance in instances}
    relations: Iterable[Any] = get_candidate_relations_to_delete(resource.model._meta)
    for relation in relations:
        field = relation.field
        if relation.on_delete is models.DO_NOTHING and field.db_constraint:
            for chunk in chunks(_values(resource.model, pks, field.target_field, resource.database)):
                if all_rows(field.model, resource.database).filter(**{f"{field.attname}__in": chunk}).exists():
                    return True
    return False


def kinds_within_reach(resource: SyncResource) -> frozenset[str]:
    """Return the kinds of which a deletion of ``resource`` may take rows along, by this node's models."""
    return _kinds_within_reach(resource.model)


@cache
def _kinds_within_reach(root: type[models.Model]) -> frozenset[str]:
    reached, queue, kinds = {root}, [root], set[str]()
    while queue:
        model = queue.pop()
        for other in _next_models(model):
            kinds.update(owner.kind for owner, _ in registry.parents_of(other) if owner.model is not root)
            if (target := registry.of_model(other)) is not None:
                kinds.add(target.kind)
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


def _next_rows(model: type[models.Model], pks: set[Any], using: str) -> Iterator[tuple[type[models.Model], set[Any]]]:
    """Yield models and primary keys of rows that are deleted directly with the rows ``pks`` of ``model``."""
    for relation in _cascading(model):
        field = relation.field
        for chunk in chunks(_values(model, pks, field.target_field, using)):
            rows = all_rows(field.model, using).filter(**{f"{field.attname}__in": chunk})
            yield field.model._meta.concrete_model, set(rows.values_list("pk", flat=True))
    for field in _generic_relations(model):
        for chunk in chunks(pks):
            rows = field.bulk_related_objects([model(pk=pk) for pk in chunk], using)
            yield field.related_model._meta.concrete_model, set(rows.values_list("pk", flat=True))
    for parent, link in model._meta.parents.items():
        if link is not None:
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
    resource: SyncResource, rows: Mapping[type[models.Model], set[Any]], roots: Collection[Any]
) -> dict[SyncResource, set[str]]:
    taken: dict[SyncResource, set[str]] = defaultdict(set)
    for model, pks in rows.items():
        others = pks.difference(roots) if model is resource.model else pks
        target = registry.of_model(model)
        if target is not None and others:
            taken[target].update(key_text(target.model._meta.pk, pk) for pk in others)
        for owner, children in registry.parents_of(model):
            gone = rows.get(owner.model, set())
            keys = _owners(owner, children, pks, gone, resource.database)
            if keys:
                taken[owner].update(keys)
    return {target: keys for target, keys in taken.items() if keys}


def _owners(
    owner: SyncResource, children: Children, pks: Iterable[Any], gone: Collection[Any], using: str
) -> Iterator[str] | list[str]:
    """Return the local keys of the resources that stay and lose the children ``pks``."""
    link, pk = children.link, owner.model._meta.pk
    target = link.target_field
    keys: list[str] = []
    for chunk in chunks(pks):
        values = set(all_rows(children.resource.model, using).filter(pk__in=chunk).values_list(link.attname, flat=True))
        if not target.primary_key:
            parents = all_rows(owner.model, using).filter(**{f"{target.attname}__in": values})
            values = set(parents.values_list("pk", flat=True))
        keys += [key_text(pk, value) for value in values if value is not None and value not in gone]
    return keys
