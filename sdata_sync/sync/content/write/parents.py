"""Keep the rows of registered parents as they are while a row that extends them is saved.

In multi-table inheritance ``save()`` writes the rows of all parent models too. If a parent is registered, its columns
travel with its own kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.db import models

from ....codecs import StoredColumn, stored_field
from ....exceptions import PayloadError
from ....kind import Kind, all_rows
from ....registry import registry
from ...log.keys import key_text
from ...log.suppression import applying

if TYPE_CHECKING:
    from ..resolve import RowChange

#: By parent model: the primary key of its row, and the stored values of its columns.
Parents = dict[type[models.Model], tuple[Any, dict[str, Any]]]


@contextmanager
def applying_to_parents(kind: Kind, instance: models.Model) -> Iterator[None]:
    """Capture nothing of the rows of registered parents that ``instance`` extends."""
    with ExitStack() as stack:
        for parent in kind.registered_parents:
            owner, link = registry.of_model(parent), kind.parent_link
            if owner is not None and link is not None:
                key = getattr(instance, link.attname)
                stack.enter_context(applying(owner.name, keys=[key_text(parent._meta.pk, key)]))
        yield


def take_parents(kind: Kind, change: RowChange) -> Parents:
    """Give the instance the columns of its registered parents, which its ``save()`` writes too.

    Return the keys and the stored columns of the parents.
    """
    link = kind.parent_link
    assert link is not None
    # Django inserts the row of a parent whose key has a default, without looking for it, while an instance is new.
    change.instance._state.adding = False
    key = getattr(change.instance, link.attname)
    found: Parents = {}
    for parent in sorted(kind.models_of_parents, key=lambda model: len(model._meta.get_parent_list())):
        columns = [field for field in parent._meta.local_concrete_fields if not field.generated]
        selected = {field.attname: StoredColumn(field.attname, stored_field(field)) for field in columns}
        rows = all_rows(parent, kind.database).filter(pk=key)
        instance = rows.first()
        if instance is None:
            raise PayloadError(f"The row of {parent._meta.label} that it extends does not exist.")
        for field in columns:
            setattr(change.instance, field.attname, getattr(instance, field.attname))
        names = list(selected)
        values = rows.values_list(*selected.values()).get()
        found[parent] = key, dict(zip(names, values, strict=True))
    return found


def restore_parents(kind: Kind, parents: Parents) -> None:
    """Set the columns of registered parents that ``save()`` has replaced to their former values."""
    for parent, (key, before) in parents.items():
        fields = {field.attname: field for field in parent._meta.local_concrete_fields}
        rows = all_rows(parent, kind.database).filter(pk=key)
        after = rows.values_list(*(StoredColumn(name, stored_field(fields[name])) for name in before)).get()
        replaced = {
            name: models.Value(value, stored_field(fields[name])) if value is not None else None
            for (name, value), now in zip(before.items(), after, strict=True)
            if value != now
        }
        if replaced:
            rows.update(**replaced)
