"""Merge two rows that are the same thing: change all references to one of them to the other, and delete it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db import IntegrityError, models

from ...kind import Kind, all_rows, key_parts
from ...models import ChildResource, TrackedResource
from ...registry import registry
from ...turns import write_transaction
from ..content.references import pointing_to
from ..content.write.writer import delete_row
from ..log.keys import key_of, key_text
from ..log.suppression import applying

logger = logging.getLogger(__name__)


def merge_rows(kind: Kind, old: models.Model, new: models.Model) -> None:
    """Change all references to ``old`` to ``new``, and delete ``old``.

    References of models that are not registered are changed too. The children of ``old`` are deleted with it, because
    the list of children of ``new`` is complete.
    """
    using = kind.database
    with applying(kind.name, keys=[key_of(old)]):
        children = {children.link for children in kind.child_lists}
        for field in _foreign_keys_to(type(old)):
            # What refers to the row of a registered parent stays with it.
            if field not in children and field.remote_field.model not in kind.models_of_parents:
                _repoint(field, old, new, using)
        _repoint_generic(old, new, using)
        delete_row(kind, old)


def _foreign_keys_to(model: type[models.Model]) -> Iterator[Any]:
    for relation in model._meta.get_fields(include_hidden=True):
        if relation.auto_created and not relation.concrete and (relation.one_to_many or relation.one_to_one):
            field: Any = relation.field  # type: ignore[union-attr]
            if not getattr(field.remote_field, "parent_link", False):
                yield field


def _repoint(field: Any, old: models.Model, new: models.Model, using: str) -> None:
    attname = field.target_field.attname
    was, becomes = getattr(old, attname), getattr(new, attname)
    rows = all_rows(field.model, using)
    for pk in list(rows.filter(**{field.attname: was}).values_list("pk", flat=True)):
        try:
            with write_transaction(using):
                rows.filter(pk=pk).update(**{field.attname: becomes})
                _follow_key(field, pk, becomes, using)
        except IntegrityError:
            # Both rows are members of the same association, or each has the one row that may refer to it. A row that
            # refers to ``new`` exists already, so this one keeps its reference to ``old``, which is deleted.
            logger.info("%s of row %s keeps its reference to the row that the merge deletes", field, pk)


def _follow_key(field: Any, was: Any, becomes: Any, using: str) -> None:
    """Set the local keys of the resource or child with the primary key ``was``, if ``field`` is a part of that key."""
    model = field.model
    pk = model._meta.pk
    parts = key_parts(pk)
    if field not in parts:
        return
    if len(parts) > 1:
        becomes = tuple(becomes if part == field else value for part, value in zip(parts, was, strict=True))
    before, after = key_text(pk, was), key_text(pk, becomes)
    kind = registry.of_model(model)
    if kind is not None:
        tracked = TrackedResource.objects.using(using).filter(kind=kind.name)
        tracked.filter(local_key=before).update(local_key=after)
    for _, children in registry.parents_of(model):
        known = ChildResource.objects.using(using).filter(kind=children.kind.name)
        known.filter(local_key=before).update(local_key=after)


def _repoint_generic(old: models.Model, new: models.Model, using: str) -> None:
    if not apps.is_installed("django.contrib.contenttypes"):
        return
    from django.contrib.contenttypes.fields import GenericForeignKey

    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.private_fields:
            if isinstance(field, GenericForeignKey) and field.model is model:
                condition = pointing_to(old, field, using)
                if condition is not None:
                    all_rows(model, using).filter(**condition).update(**{field.fk_field: new.pk})
