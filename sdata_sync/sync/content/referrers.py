"""Find the rows that refer to a row that is deleted; the database empties these references without a signal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import F

from ...kind import Kind, all_rows
from ...models import TrackedResource
from ...registry import registry
from ...relations import Association, Children, GenericReference, Reference, Relation
from ..log.keys import key_text
from ..log.marks import mark
from ..log.suppression import is_applied
from ..log.wakeup import wake_after_commit
from .pending import store_pending
from .references import owners_of, pointing_to

#: The ``on_delete`` rules that change no reference: its row is deleted, or the deletion is refused. The last is of
#: Django 6.1.
_UNTOUCHED = (models.CASCADE, models.PROTECT, models.RESTRICT, models.DO_NOTHING, getattr(models, "DB_CASCADE", None))
#: The ``on_delete`` rules that set the reference to null.
_SETS_NULL = (models.SET_NULL, getattr(models, "DB_SET_NULL", models.SET_NULL))


@dataclass(frozen=True)
class Referrer:
    """Hold a relation of a registered kind, or of its children, by which rows refer to a target row."""

    kind: Kind
    relation: Reference | Association | GenericReference
    children: Children | None = None

    def rows_of(self, instance: models.Model, using: str) -> list[str]:
        """Return the local keys of the resources that refer to ``instance``."""
        if isinstance(self.relation, Association):
            return _keys(self.kind, owners_of(self.relation, instance, using))
        if isinstance(self.relation, GenericReference):
            condition = pointing_to(instance, self.relation.field, using)
            if condition is None:
                return []
            return _keys(self.kind, self.kind.rows().filter(**condition).values_list("pk", flat=True))
        target = self.relation.field.target_field.attname
        owner = self.kind if self.children is None else self.children.kind
        rows = all_rows(owner.model, using).filter(**{self.relation.field.attname: getattr(instance, target)})
        name = "pk" if self.children is None else self.children.link.attname
        return _keys(self.kind, rows.values_list(name, flat=True))


def _keys(kind: Kind, values: Any) -> list[str]:
    return sorted({key_text(kind.model._meta.pk, value) for value in values})


def referrers_of(model: type[models.Model]) -> tuple[Referrer, ...]:
    """Return the relations that are emptied when a row of ``model`` is deleted."""
    return tuple(referrer for referrer in _all_referrers(model) if _is_emptied(referrer.relation))


def _all_referrers(model: type[models.Model]) -> Iterator[Referrer]:
    for kind in registry:
        for referrer in _referrers(kind):
            if isinstance(referrer.relation, GenericReference) or issubclass(model, referrer.relation.model):
                yield referrer


def _referrers(kind: Kind) -> Iterator[Referrer]:
    try:
        for relation in kind.relations:
            if isinstance(relation, Reference | Association | GenericReference):
                yield Referrer(kind, relation)
        for children in kind.child_lists:
            for relation in children.kind.relations:
                if isinstance(relation, Reference):
                    yield Referrer(kind, relation, children)
    except FieldDoesNotExist:  # a system check reports it
        return


def _is_emptied(relation: Relation) -> bool:
    if isinstance(relation, Reference):
        return relation.field.remote_field.on_delete not in _UNTOUCHED
    return isinstance(relation, Association | GenericReference)


def mark_all_referrers(instance: models.Model, using: str) -> None:
    """Mark the rows that refer to ``instance``, because its uuid has changed."""
    mark_referrers(tuple(_all_referrers(type(instance))), instance, using)


def await_withdrawn(referrers: tuple[Referrer, ...], instance: models.Model, using: str) -> None:
    """Make the references to ``instance`` pending, because its row is withdrawn from this node.

    Raises:
        ProtectedError: a reference cannot become pending.
    """
    for referrer, keys in _await(referrers, instance, using):
        relation, kind = referrer.relation, referrer.kind.name
        raise models.ProtectedError(f"{relation.name} of {kind}({keys[0]!r}) cannot be made pending.", {instance})


def keep_emptied(referrers: tuple[Referrer, ...], instance: models.Model, using: str) -> None:
    """Keep the versions of the rows whose references to ``instance`` a received deletion empties.

    The version of such a row still refers to the deleted resource, as it does at every other node, and the reference is
    pending. Where a reference cannot be pending, in a child or with SET_DEFAULT for instance, the row gets a new
    version. Its stamp is just after the present stamp, so that no edit of another node loses against it.
    """
    for referrer, keys in _await(referrers, instance, using):
        kind = referrer.kind
        rows = TrackedResource.objects.using(using).filter(
            kind=kind.name, local_key__in=keys, mark__isnull=True, is_deferred=False
        )
        rows.update(mark=F("stamp") + 1, is_intent=False, mark_user="")
        wake_after_commit(kind.name, using)


def _await(referrers: tuple[Referrer, ...], instance: models.Model, using: str) -> Iterator[tuple[Referrer, list[str]]]:
    """Make the references to ``instance`` pending; yield those that cannot be pending, with the keys of their rows."""
    target = registry.of_model(type(instance)._meta.concrete_model or type(instance))
    if target is None:
        mark_referrers(referrers, instance, using)
        return
    tracked = TrackedResource.objects.using(using)
    key = key_text(target.model._meta.pk, instance.pk)
    uuid = tracked.filter(kind=target.name, local_key=key).values_list("uuid", flat=True).first()
    for referrer in referrers:
        kind, relation = referrer.kind, referrer.relation
        keys = [key for key in referrer.rows_of(instance, using) if not is_applied(kind.name, None, key)]
        if not keys or uuid is None:
            continue
        if referrer.children is not None or not _can_wait(relation):
            yield referrer, keys
            continue
        rows = tracked.filter(kind=kind.name, local_key__in=keys, is_deferred=False)
        store_pending(kind, {pk: {relation.name: [(target.name, uuid)]} for pk in rows.values_list("pk", flat=True)})
        if isinstance(relation, GenericReference):  # the database does not empty a generic foreign key
            kind.rows().filter(pk__in=keys).update(**dict.fromkeys(relation.columns))


def _can_wait(relation: Relation) -> bool:
    if isinstance(relation, Reference):
        return relation.field.remote_field.on_delete in _SETS_NULL
    return relation.is_nullable


def mark_referrers(referrers: tuple[Referrer, ...], instance: models.Model, using: str) -> None:
    """Mark the rows that refer to ``instance`` by ``referrers``."""
    for referrer in referrers:
        kind = referrer.kind.name
        keys = [key for key in referrer.rows_of(instance, using) if not is_applied(kind, None, key)]
        # A row with a deferred version is not marked: a mark would be an edit that overrules the deferred version.
        waiting = TrackedResource.objects.using(using).filter(kind=kind, local_key__in=keys, is_deferred=True)
        keys = sorted(set(keys) - set(waiting.values_list("local_key", flat=True))) if keys else []
        if keys:
            mark(using, kind, keys)
            wake_after_commit(kind, using)
