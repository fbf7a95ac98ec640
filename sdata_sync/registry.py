"""Register models, and order their kinds: a kind that is referred to is synchronised first (SData sync 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.dispatch import Signal

from .exceptions import RegistrationError
from .kind import Kind
from .relations import Association, Children, Reference
from .resources import SyncResource

_Model = type[models.Model]


def sync_orders(resources: Mapping[_Model, Kind]) -> dict[_Model, int]:
    """Return the order of each model: its resource's own, else one above all that it refers to."""
    needed = {model: set(referred_to(resource, resources)) - {(model, False), (model, True)}
              for model, resource in resources.items()}  # fmt: skip
    orders: dict[_Model, int] = {}
    left = sorted(resources, key=lambda model: resources[model].kind)
    while left:
        model = _next(left, needed)
        left.remove(model)
        explicit = resources[model].declared.order
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


def referred_to(resource: Kind, resources: Mapping[_Model, Kind]) -> Iterator[tuple[_Model, bool]]:
    """Yield the registered models that a resource, or a child of it, refers to, and whether it can do without."""
    try:
        relations = [*resource.relations, *(r for lists in resource.child_lists for r in lists.resource.relations)]
    except FieldDoesNotExist:  # said by the checks
        return
    for relation in relations:
        if isinstance(relation, Reference | Association) and relation.model in resources:
            yield relation.model, isinstance(relation, Association) or relation.is_nullable


R = TypeVar("R", bound=type[SyncResource])

#: Sent with ``resource`` after a registration and after its end.
resource_registered = Signal()
resource_unregistered = Signal()


class Registry:
    """The registered resources, by model. Registration is reversible."""

    def __init__(self) -> None:
        self._resources: dict[type[models.Model], Kind] = {}
        self._orders: dict[type[models.Model], int] | None = None
        #: What goes ahead of each kind: asked for every page that is delivered.
        self._ahead: dict[str, list[Kind]] = {}

    def __iter__(self) -> Iterator[Kind]:
        """Yield the resources in the order in which their kinds are synchronised."""
        orders = self.orders()
        return iter(sorted(self._resources.values(), key=lambda resource: (orders[resource.model], resource.kind)))

    def orders(self) -> dict[type[models.Model], int]:
        """Return the ``syncOrder`` of each model: its resource's own, else one above all that it refers to.

        Where references go round in a circle, those that may be empty do not count: they are filled in later
        (SData sync 6.1).
        """
        if self._orders is None:
            self._orders = sync_orders(self._resources)
        return self._orders

    def add(self, model: type[models.Model], resource_class: type[SyncResource]) -> Kind:
        """Register ``model``.

        Raises:
            RegistrationError: it is registered already, abstract, or a proxy.
        """
        if not (isinstance(model, type) and issubclass(model, models.Model)):
            raise RegistrationError(f"Expected a model, received {model!r}.")
        if model._meta.abstract or model._meta.proxy:
            raise RegistrationError(
                f"{model._meta.label} has no table of its own; register the model whose table holds its rows."
            )
        if model in self._resources:
            raise RegistrationError(f"{model._meta.label} is registered already, as {self._resources[model]!r}.")
        resource = Kind(model, resource_class)
        self._resources[model] = resource
        self._forget_orders()
        resource_registered.send(sender=type(self), resource=resource)
        return resource

    def remove(self, model: type[models.Model]) -> None:
        """End the registration of ``model``.

        Raises:
            RegistrationError: it is not registered.
        """
        if model not in self._resources:
            raise RegistrationError(f"{model._meta.label} is not registered.")
        resource = self._resources.pop(model)
        self._forget_orders()
        resource_unregistered.send(sender=type(self), resource=resource)

    def of_model(self, model: type[models.Model]) -> Kind | None:
        """Return the resource of ``model``, or ``None``."""
        return self._resources.get(model)

    def of_kind(self, kind: str) -> Kind | None:
        """Return the kind whose path is ``kind`` without case, or ``None``."""
        wanted = kind.lower()
        return next((resource for resource in self._resources.values() if resource.kind.lower() == wanted), None)

    def kinds_referred_to(self, resource: Kind) -> set[str]:
        """Return the names of the other kinds that ``resource`` or a child of it refers to."""
        models_ = {model for model, _ in referred_to(resource, self._resources)}
        return {self._resources[model].kind for model in models_} - {resource.kind}

    def ahead_of(self, resource: Kind) -> list[Kind]:
        """Return, in their order, the kinds before ``resource`` that it refers to, directly or indirectly."""
        if resource.kind not in self._ahead:
            wanted, ahead = self.kinds_referred_to(resource), list[Kind]()
            for earlier in reversed(list(takewhile(lambda other: other.kind != resource.kind, self))):
                if earlier.kind in wanted:
                    ahead.insert(0, earlier)
                    wanted |= self.kinds_referred_to(earlier)
            self._ahead[resource.kind] = ahead
        return self._ahead[resource.kind]

    def _forget_orders(self) -> None:
        self._orders = None
        self._ahead = {}

    def parents_of(self, model: type[models.Model]) -> list[tuple[Kind, Children]]:
        """Return the resources of which rows of ``model`` are children, and the lists."""
        return [
            (resource, children)
            for resource in self._resources.values()
            for children in child_lists(resource)
            if children.resource.model is model
        ]


def child_lists(resource: Kind) -> tuple[Children, ...]:
    """Return the lists of children of ``resource``; what is wrong with them is for the checks to say."""
    try:
        return resource.child_lists
    except FieldDoesNotExist:
        return ()


registry = Registry()


def register(*models_: type[models.Model]) -> Callable[[R], R]:
    """Register the decorated ``SyncResource`` for one or more models.

    Raises:
        RegistrationError: a model cannot be registered, or the decorated class is no ``SyncResource``.
    """

    def decorate(resource_class: R) -> R:
        if not (isinstance(resource_class, type) and issubclass(resource_class, SyncResource)):
            raise RegistrationError(f"Expected a subclass of SyncResource, received {resource_class!r}.")
        for model in models_:
            registry.add(model, resource_class)
        return resource_class

    return decorate


def unregister(*models_: type[models.Model]) -> None:
    """End the registration of models; what is tracked of them stays in the database."""
    for model in models_:
        registry.remove(model)


@contextmanager
def registered(model: type[models.Model], resource_class: type[SyncResource] = SyncResource) -> Iterator[Kind]:
    """Register ``model`` inside the context only; for tests."""
    resource = registry.add(model, resource_class)
    try:
        yield resource
    finally:
        registry.remove(model)
