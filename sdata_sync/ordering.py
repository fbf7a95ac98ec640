"""In which order kinds are synchronised: what is referred to comes first (SData sync 6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from django.core.exceptions import FieldDoesNotExist
from django.db import models

from .relations import Association, Reference
from .resources import SyncResource

_Model = type[models.Model]


def sync_orders(resources: Mapping[_Model, SyncResource]) -> dict[_Model, int]:
    """Return the order of each model: its resource's own, else one above all that it refers to."""
    needed = {model: set(referred_to(resource, resources)) - {(model, False), (model, True)}
              for model, resource in resources.items()}  # fmt: skip
    orders: dict[_Model, int] = {}
    left = sorted(resources, key=lambda model: resources[model].kind)
    while left:
        model = _next(left, needed)
        left.remove(model)
        explicit = resources[model].order
        above = max((orders[other] for other, _ in needed[model] if other in orders), default=0)
        orders[model] = above + 1 if explicit is None else explicit
    return orders


def _next(left: list[_Model], needed: Mapping[_Model, set[tuple[_Model, bool]]]) -> _Model:
    """Return a model that waits for no other; in a circle, one that can do without what it waits for."""
    waiting = set(left)
    for may_wait_for_nullable in (False, True):
        for model in left:
            if not any(other in waiting and not (is_nullable and may_wait_for_nullable)
                       for other, is_nullable in needed[model]):  # fmt: skip
                return model
    return left[0]


def referred_to(resource: SyncResource, resources: Mapping[_Model, SyncResource]) -> Iterator[tuple[_Model, bool]]:
    """Yield the registered models that a resource, or a child of it, refers to, and whether it can do without."""
    try:
        relations = [*resource.relations, *(r for lists in resource.child_lists for r in lists.resource.relations)]
    except FieldDoesNotExist:  # said by the checks
        return
    for relation in relations:
        if isinstance(relation, Reference | Association) and relation.model in resources:
            yield relation.model, isinstance(relation, Association) or relation.is_nullable
