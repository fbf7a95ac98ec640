"""Find the files of a row: those of its file fields, and of the file fields of its children."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.core.files.storage import Storage
from django.db import models

from ...sync.log.keys import key_values

if TYPE_CHECKING:
    from ...kind import Kind


def file_fields(kind: Kind) -> list[models.FileField]:
    """Return the file fields of ``kind`` that are sent; none if the nodes share their storage."""
    if kind.declared.has_shared_files:
        return []
    return [prop.field for prop in kind.properties if isinstance(prop.field, models.FileField)]


def has_files(kind: Kind) -> bool:
    """Return True if rows of ``kind``, or their children, have files."""
    return bool(file_fields(kind)) or any(file_fields(children.kind) for children in kind.child_lists)


def files_of(kind: Kind, key: str) -> dict[str, Storage]:
    """Return the paths of the files of the row ``key`` and of its children, each with its storage."""
    parents = kind.rows().filter(pk__in=key_values(kind.model._meta.pk, [key]))
    found = dict(_of_rows(kind, parents))
    for children in kind.child_lists:
        if file_fields(children.kind):
            values = parents.values_list(children.link.target_field.attname, flat=True)
            rows = children.kind.rows().filter(**{f"{children.link.attname}__in": list(values)})
            found.update(_of_rows(children.kind, rows))
    return found


def _of_rows(kind: Kind, rows: models.QuerySet[models.Model]) -> Iterator[tuple[str, Storage]]:
    fields = file_fields(kind)
    if fields:
        for paths in rows.values_list(*(field.attname for field in fields)):
            yield from ((str(path), field.storage) for path, field in zip(paths, fields, strict=True) if path)
