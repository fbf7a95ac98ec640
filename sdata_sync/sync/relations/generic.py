"""Generic foreign keys: references that say themselves of which kind they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import models

from ...atom.payload import Text
from ...exceptions import PayloadError
from ...registry import registry
from ...relations import PROBLEM
from ...resources import SyncResource
from ..marks import key_text
from ..rows import existing_keys
from .directory import uuids_of


def generic_texts(resource: SyncResource, values: Mapping[str, tuple[Any, Any]]) -> dict[str, Text]:
    """Return the texts of a generic foreign key for rows whose content type and object are ``values``, by local key."""
    texts: dict[str, Text] = dict.fromkeys(values)
    by_type: dict[Any, dict[str, Any]] = {}
    for key, (content_type, value) in values.items():
        if content_type is not None and value is not None:
            by_type.setdefault(content_type, {})[key] = value
    for content_type, objects in by_type.items():
        model = _content_types(resource).get_for_id(content_type).model_class()
        target = None if model is None else registry.of_model(model._meta.concrete_model)
        if target is None:
            label = "a model that is gone" if model is None else model._meta.label
            texts.update(dict.fromkeys(objects, f"{PROBLEM}it points to {label}, which is not registered"))
            continue
        pk = target.model._meta.pk
        keys = {key: key_text(pk, value) for key, value in objects.items()}
        # The database does not keep them from leading nowhere; to nothing is where they lead then.
        present = existing_keys(target, keys.values())
        uuids = uuids_of(target, present)
        texts.update((key, f"{target.kind} {uuids[other]}") for key, other in keys.items() if other in uuids)
    return texts


def generic_target(kind: str) -> SyncResource:
    """Return the resource of the kind that a generic foreign key names.

    Raises:
        PayloadError
    """
    target = registry.of_kind(kind)
    if target is None:
        raise PayloadError(f"expected a reference to a kind that is known here, received one to {kind[:80]!r}.")
    return target


def generic_values(resource: SyncResource, target: SyncResource, key: str) -> tuple[Any, Any]:
    """Return the content type and the object that lead to the row of ``target`` with the local ``key``."""
    pk: models.Field[Any, Any] = target.model._meta.pk
    return _content_types(resource).get_for_model(target.model).pk, pk.to_python(key)


def content_type_of(resource: SyncResource, model: type[models.Model]) -> Any:
    """Return the primary key of the content type of ``model``."""
    return _content_types(resource).get_for_model(model).pk


def _content_types(resource: SyncResource) -> Any:
    from django.contrib.contenttypes.models import ContentType

    return ContentType.objects.db_manager(resource.database)
