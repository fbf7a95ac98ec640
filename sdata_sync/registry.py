"""Register models, and order their kinds: a kind that other kinds refer to is synchronised first (SData sync 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.dispatch import Signal

from .core.text import fold
from .exceptions import RegistrationError
from .kind import Kind
from .relations import Association, Children, Reference
from .resources import SyncResource

_Model = type[models.Model]


def sync_orders(resources: Mapping[_Model, Kind]) -> dict[_Model, int]:
    """Return the ``syncOrder`` of each model: the declared one, else one more than that of all models it refers to."""
    needed = {model: set(referred_to(kind, resources)) - {(model, False), (model, True)}
              for model, kind in resources.items()}  # fmt: skip
    orders: dict[_Model, int] = {}
    left = sorted(resources, key=lambda model: resources[model].name)
    while left:
        model = _next(left, needed)
        left.remove(model)
        explicit = resources[model].declared.order
        above = max((orders[other] for other, _ in needed[model] if other in orders), default=0)
        orders[model] = above + 1 if explicit is None else explicit
    return orders


def _next(left: list[_Model], needed: Mapping[_Model, set[tuple[_Model, bool]]]) -> _Model:
    """Return a model of ``left`` that refers to no other of them; in a cycle, one whose references may be empty."""
    waiting = set(left)
    for may_wait_for_nullable in (False, True):
        for model in left:
            if not any(other in waiting and not (is_nullable and may_wait_for_nullable)
                       for other, is_nullable in needed[model]):  # fmt: skip
                return model
    return left[0]


def referred_to(kind: Kind, resources: Mapping[_Model, Kind]) -> Iterator[tuple[_Model, bool]]:
    """Yield the registered models that ``kind`` or its children refer to; True if the reference may be empty."""
    try:
        relations = [*kind.relations, *(r for lists in kind.child_lists for r in lists.kind.relations)]
    except FieldDoesNotExist:  # the system checks report it
        return
    for relation in relations:
        if isinstance(relation, Reference | Association) and relation.model in resources:
            yield relation.model, isinstance(relation, Association) or relation.is_nullable


R = TypeVar("R", bound=type[SyncResource])

#: Sent with ``kind`` after its registration, and after its registration has ended.
resource_registered = Signal()
resource_unregistered = Signal()


class Registry:
    """Hold the registered resources by model; registration is reversible."""

    def __init__(self) -> None:
        self._resources: dict[type[models.Model], Kind] = {}
        self._orders: dict[type[models.Model], int] | None = None
        #: The result of ``ahead_of`` by kind, cached because it is needed for every page that is delivered.
        self._ahead: dict[str, list[Kind]] = {}

    def __iter__(self) -> Iterator[Kind]:
        """Yield the resources in the order in which their kinds are synchronised."""
        orders = self.orders()
        return iter(sorted(self._resources.values(), key=lambda kind: (orders[kind.model], kind.name)))

    def orders(self) -> dict[type[models.Model], int]:
        """Return the ``syncOrder`` of each model: the declared one, else one more than that of all models it refers to.

        In a cycle of references, those that may be empty do not count, because they are filled in later (SData sync
        6.1).
        """
        if self._orders is None:
            self._orders = sync_orders(self._resources)
        return self._orders

    def add(self, model: type[models.Model], resource_class: type[SyncResource]) -> Kind:
        """Register ``model`` with ``resource_class``, and return its ``Kind``.

        Raises:
            RegistrationError: ``model`` is no model, is abstract or a proxy, or is registered already.
        """
        if not (isinstance(model, type) and issubclass(model, models.Model)):
            raise RegistrationError(f"Expected a model, received {model!r}.")
        if model._meta.abstract or model._meta.proxy:
            raise RegistrationError(
                f"{model._meta.label} has no table of its own; register the model whose table holds its rows."
            )
        if model in self._resources:
            raise RegistrationError(f"{model._meta.label} is registered already, as {self._resources[model]!r}.")
        self._resources[model] = Kind(model, resource_class)
        self._set_parents()
        kind = self._resources[model]
        self._forget_orders()
        resource_registered.send(sender=type(self), kind=kind)
        return kind

    def remove(self, model: type[models.Model]) -> None:
        """End the registration of ``model``.

        Raises:
            RegistrationError: ``model`` is not registered.
        """
        if model not in self._resources:
            raise RegistrationError(f"{model._meta.label} is not registered.")
        kind = self._resources.pop(model)
        self._set_parents()
        self._forget_orders()
        resource_unregistered.send(sender=type(self), kind=kind)

    def _set_parents(self) -> None:
        """Make the kinds anew whose models have other registered parents than before."""
        for model, kind in list(self._resources.items()):
            found = [parent for parent in model._meta.get_parent_list() if parent in self._resources]
            found.sort(key=lambda parent: len(parent._meta.get_parent_list()), reverse=True)
            if kind.registered_parents != tuple(found):
                self._resources[model] = Kind(model, type(kind.declared), registered_parents=tuple(found))

    def of_model(self, model: type[models.Model]) -> Kind | None:
        """Return the ``Kind`` of ``model``, or ``None`` if it is not registered."""
        return self._resources.get(model)

    def of_kind(self, kind_name: str) -> Kind | None:
        """Return the ``Kind`` that is named ``kind``, ignoring case, or ``None`` if there is none."""
        wanted = fold(kind_name)
        return next((kind for kind in self._resources.values() if fold(kind.name) == wanted), None)

    def kinds_referred_to(self, kind: Kind) -> set[str]:
        """Return the names of the other kinds that ``kind`` or a child of it refers to."""
        models_ = {model for model, _ in referred_to(kind, self._resources)}
        return {self._resources[model].name for model in models_} - {kind.name}

    def ahead_of(self, kind: Kind) -> list[Kind]:
        """Return, in their order, the kinds before ``kind`` that it refers to, directly or indirectly."""
        if kind.name not in self._ahead:
            wanted, ahead = self.kinds_referred_to(kind), list[Kind]()
            for earlier in reversed(list(takewhile(lambda other: other.name != kind.name, self))):
                if earlier.name in wanted:
                    ahead.insert(0, earlier)
                    wanted |= self.kinds_referred_to(earlier)
            self._ahead[kind.name] = ahead
        return self._ahead[kind.name]

    def _forget_orders(self) -> None:
        self._orders = None
        self._ahead = {}

    def parents_of(self, model: type[models.Model]) -> list[tuple[Kind, Children]]:
        """Return the resources whose children are rows of ``model``, each with its list of children."""
        return [
            (kind, children)
            for kind in self._resources.values()
            for children in child_lists(kind)
            if children.kind.model is model
        ]


def child_lists(kind: Kind) -> tuple[Children, ...]:
    """Return the lists of children of ``kind``; none if one is misdeclared, which the system checks report."""
    try:
        return kind.child_lists
    except FieldDoesNotExist:
        return ()


registry = Registry()


def register(*models_: type[models.Model]) -> Callable[[R], R]:
    """Register the decorated ``SyncResource`` for one or more models.

    Raises:
        RegistrationError: a model cannot be registered (see ``Registry.add``), or the class is no ``SyncResource``.
    """

    def decorate(resource_class: R) -> R:
        if not (isinstance(resource_class, type) and issubclass(resource_class, SyncResource)):
            raise RegistrationError(f"Expected a subclass of SyncResource, received {resource_class!r}.")
        for model in models_:
            registry.add(model, resource_class)
        return resource_class

    return decorate


def unregister(*models_: type[models.Model]) -> None:
    """End the registration of models; their ``TrackedResource`` rows stay in the database.

    Raises:
        RegistrationError: a model is not registered.
    """
    for model in models_:
        registry.remove(model)


@contextmanager
def registered(model: type[models.Model], resource_class: type[SyncResource] = SyncResource) -> Iterator[Kind]:
    """Register ``model`` for the duration of a ``with`` block; for tests."""
    kind = registry.add(model, resource_class)
    try:
        yield kind
    finally:
        registry.remove(model)
