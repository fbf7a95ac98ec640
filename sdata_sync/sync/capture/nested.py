"""Capture changes inside a resource: a change of a child or of an association is a change of the resource."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models

from ...kind import Kind, all_rows
from ...models import ChildResource
from ...registry import registry
from ...relations import Association, Children
from ..content.references import owners_of
from ..log.keys import key_text
from ..log.marks import mark
from ..log.suppression import is_applied, is_applying_deletions, is_withdrawing
from ..log.wakeup import wake_after_commit

#: A resource, and one of its lists of children.
Inside = tuple[Kind, Children]


def before_child_save(inside: Iterable[Inside], instance: models.Model, using: str) -> None:
    """Mark the parent of the child ``instance``, and the parent that the stored row of the child has."""
    in_transaction = connections[using].in_atomic_block
    for kind, children in inside:
        values = {getattr(instance, children.link.attname)}
        if instance.pk is not None and not instance._state.adding:
            stored = all_rows(children.kind.model, using).filter(pk=instance.pk)
            values.update(stored.values_list(children.link.attname, flat=True))
        mark_parents(kind, children, values, using, is_intent=not in_transaction)


def after_child_save(inside: Iterable[Inside], instance: models.Model, using: str) -> None:
    """Mark the parent again if the row was committed at once; in a transaction the mark before the save is enough."""
    if not connections[using].in_atomic_block:
        for kind, children in inside:
            mark_parents(kind, children, [getattr(instance, children.link.attname)], using)


def before_child_delete(inside: Iterable[Inside], instance: models.Model, using: str) -> None:
    """Mark the parent of the child ``instance``, and delete the stored uuid of the child."""
    for kind, children in inside:
        mark_parents(kind, children, [getattr(instance, children.link.attname)], using)
        key = key_text(children.kind.model._meta.pk, instance.pk)
        ChildResource.objects.using(using).filter(kind=children.kind.name, local_key=key).delete()


def mark_parents(kind: Kind, children: Children, values: Iterable[Any], using: str, *, is_intent: bool = False) -> None:
    """Mark the parents that children refer to with the foreign key ``values``.

    Raises:
        ProtectedError: the children would be deleted by a withdrawal of another row.
    """
    if using != kind.database:
        return
    wanted = {value for value in values if value is not None}
    keys = [key for key in _parent_keys(kind, children, wanted, using) if not is_applied(kind.name, None, key)]
    if keys:
        if is_withdrawing():
            raise models.ProtectedError(f"Children of {kind.name} would be deleted by a withdrawal.", set())
        mark(using, kind.name, keys, is_intent=is_intent)
        if not is_intent:
            wake_after_commit(kind.name, using)


def _parent_keys(kind: Kind, children: Children, values: set[Any], using: str) -> list[str]:
    target = children.link.target_field
    pk = kind.model._meta.pk
    if not target.primary_key:
        rows = all_rows(kind.model, using).filter(**{f"{target.attname}__in": values})
        values = set(rows.values_list("pk", flat=True))
    return sorted(key_text(pk, value) for value in values)


def on_association_changed(
    *,
    sender: type[models.Model],
    instance: models.Model,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
    **kwargs: Any,
) -> None:
    """Mark the resources whose associations have changed, from either side of the many-to-many field."""
    if action not in ("post_add", "post_remove", "pre_clear"):
        return
    for kind, relation in associations_through(sender):
        if using != kind.database:
            continue
        if relation.is_symmetrical:
            owners: Iterable[Any] = [instance.pk, *(owners_of(relation, instance, using) if pk_set is None else pk_set)]
        elif not reverse:
            owners = [instance.pk]
        elif pk_set is not None:
            owners = pk_set
        else:
            owners = owners_of(relation, instance, using)
        _mark_owners(kind, owners, using)


def _mark_owners(kind: Kind, owners: Iterable[Any], using: str) -> None:
    """Mark the rows with the primary keys ``owners``, except those that are being applied."""
    keys = [key_text(kind.model._meta.pk, owner) for owner in owners]
    keys = [key for key in keys if not is_applied(kind.name, None, key)]
    if keys:
        mark(using, kind.name, keys)
        wake_after_commit(kind.name, using)


def on_through_row_changed(*, sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    """Mark the resource whose association has a row of its own saved or deleted, past the many-to-many field."""
    if is_applying_deletions() or is_withdrawing():
        return
    for kind, relation in associations_through(sender):
        field: Any = relation.field
        ends = [field.m2m_field_name(), *([field.m2m_reverse_field_name()] if relation.is_symmetrical else [])]
        owners = [getattr(instance, sender._meta.get_field(name).attname) for name in ends]  # type: ignore[union-attr]
        if using == kind.database:
            _mark_owners(kind, [owner for owner in owners if owner is not None], using)


def associations_through(through: type[models.Model]) -> list[tuple[Kind, Association]]:
    """Return the associations of registered resources whose join table is that of the model ``through``."""
    return [(kind, relation) for kind in registry for relation in associations(kind) if relation.through is through]


def associations(kind: Kind) -> list[Association]:
    """Return the associations of ``kind``; none if it names missing fields, which the system checks report."""
    try:
        return [relation for relation in kind.relations if isinstance(relation, Association)]
    except FieldDoesNotExist:
        return []
