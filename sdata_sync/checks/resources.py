"""Check the registered resources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import FieldDoesNotExist
from django.db import models, router

from ..codecs import codec_of, linked_field
from ..core.text import fold
from ..kind import is_made_by_database, key_parts
from ..registry import registry
from ..relations import Association, Reference, Relation

if TYPE_CHECKING:
    from ..kind import Kind

#: The number of characters that fit into ``TrackedResource.local_key``.
MAX_KEY = 500


def check_resources(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the registered resources: E010 to E019, E022 to E026, E031, W008, W009, W011, W012."""
    found: list[CheckMessage] = []
    kinds: dict[str, Kind] = {}
    for kind in registry:
        other = kinds.setdefault(fold(kind.name), kind)
        if other is not kind:
            found.append(
                Error(
                    f"{kind!r} and {other!r} have the same path.",
                    hint="Set `path` of one of them to another name.",
                    obj=kind.model,
                    id="sdata_sync.E011",
                )
            )
        found.extend(_check_kind(kind))
        found.extend(_check_parents(kind))
        found.extend(_check_identity(kind))
    found.extend(_check_elements())
    return found


#: The models that decide who may log in and do what, beside AUTH_USER_MODEL.
_IDENTITY_MODELS = ("auth.Group", "auth.Permission", "authtoken.Token", "sessions.Session")
#: The fields of such models that grant rights or are secrets.
_RIGHTS = (
    "password", "is_superuser", "is_staff", "groups", "user_permissions", "permissions", "key", "session_key",
    "session_data",
)  # fmt: skip


def _check_identity(kind: Kind) -> Iterator[CheckMessage]:
    labels = {label.lower() for label in (settings.AUTH_USER_MODEL, *_IDENTITY_MODELS)}
    related = (kind.model._meta.concrete_model or kind.model, *kind.model._meta.get_parent_list())
    if not any(model._meta.label_lower in labels for model in related):
        return
    if kind.declared.fields is None:
        yield Error(
            f"{kind!r}: its rows decide who may log in and do what; name in `fields` what is sent.",
            hint="A peer that may push changes of this kind could otherwise make a superuser of each of its users.",
            obj=kind.model,
            id="sdata_sync.E031",
        )
        return
    named = [name for name in _RIGHTS if name in kind.declared.fields]
    if named:
        yield CheckWarning(
            f"{kind!r}: {', '.join(named)} {'are' if len(named) > 1 else 'is'} sent, so each peer that may push "
            "changes of this kind decides about rights or secrets at this node.",
            hint="Leave the fields out, or silence this check if each peer is trusted as an administrator is.",
            obj=kind.model,
            id="sdata_sync.W012",
        )


def _check_elements() -> Iterator[CheckMessage]:
    elements: dict[tuple[str, str], Kind] = {}
    for kind in registry:
        other = elements.setdefault((kind.namespace, fold(kind.element_name)), kind)
        if other is not kind:
            yield CheckWarning(
                f"{kind!r} and {other!r} have the same element, {kind.element_name}, in one namespace.",
                hint="Other systems cannot tell the two kinds apart in $schema. Set `element` of one of them to "
                "another name, at all nodes.",
                obj=kind.model,
                id="sdata_sync.W011",
            )


def _check_parents(kind: Kind) -> Iterator[CheckMessage]:
    if not kind.registered_parents:
        return
    named = {*(kind.declared.fields or ()), *kind.declared.exclude}
    twice = sorted(
        field.name
        for field in kind.model._meta.concrete_fields
        if field.name in named and field.model in kind.models_of_parents
    )
    if twice:
        parents = " and ".join(parent._meta.label for parent in kind.registered_parents)
        yield Error(
            f"{kind!r} names {', '.join(twice)}, which the rows of {parents} have, and that is registered too.",
            hint="Leave them out: the columns of a registered parent travel with the kind of the parent.",
            obj=kind.model,
            id="sdata_sync.E018",
        )
    elif kind.parent_link is None:
        yield Error(
            f"{kind!r} has several registered parents, of which none has the others as its parents.",
            hint="Register one of them, or the model alone.",
            obj=kind.model,
            id="sdata_sync.E018",
        )


def _check_kind(kind: Kind) -> Iterator[CheckMessage]:
    model = kind.model
    if model._meta.swapped or not router.allow_migrate_model(kind.database, model):
        yield Error(
            f"{model._meta.label} has no table in the database {kind.database!r}, where it would be written.",
            hint="Register the model that is in use, or let the database router allow its table there.",
            obj=model,
            id="sdata_sync.E017",
        )
    if not kind.name.isidentifier():
        yield Error(f"The path {kind.name!r} of {kind!r} is no identifier.", obj=model, id="sdata_sync.E012")
    if _longest_key(model) > MAX_KEY:
        yield Error(
            f"{model._meta.label} has primary keys of more than {MAX_KEY} characters.",
            hint="Use shorter primary keys: the column TrackedResource.local_key must hold them.",
            obj=model,
            id="sdata_sync.E025",
        )
    if kind.declared.conflict_priority is not None and kind.declared.conflict_priority not in range(1, 10):
        yield Error(f"The conflict_priority of {kind!r} must be from 1 to 9.", obj=model, id="sdata_sync.E013")
    try:
        fields = kind.model_fields
    except FieldDoesNotExist as error:
        names = ", ".join(field.name for field in model._meta.concrete_fields)
        yield Error(f"{kind!r}: {error}", hint=f"The model has: {names}.", obj=model, id="sdata_sync.E010")
        return
    yield from _check_fields(kind, fields)
    yield from _check_key(kind, fields)
    yield from _check_left_out(kind, fields)


def _longest_key(model: type[models.Model]) -> int:
    """Return the greatest number of characters of a local key of ``model``."""
    parts = key_parts(model._meta.pk)
    longest = 0 if len(parts) == 1 else 1 + 3 * len(parts)
    for part in map(linked_field, parts):
        longest += MAX_KEY + 1 if isinstance(part, models.TextField) else (part.max_length or 20)
    return longest


def _check_key(kind: Kind, fields: Sequence[models.Field[Any, Any]]) -> Iterator[CheckMessage]:
    for part in key_parts(kind.key_field):
        if kind.is_target and not (part in fields or is_made_by_database(part) or part.has_default()):
            yield Error(
                f"{kind!r}: a received row would have no value for its primary key {part.name!r}, which is not sent.",
                hint=f"Add {part.name!r} to `fields`, or set `is_target = False`.",
                obj=kind.model,
                id="sdata_sync.E026",
            )


def _check_left_out(kind: Kind, fields: Sequence[models.Field[Any, Any]]) -> Iterator[CheckMessage]:
    """Report what users expect to be sent and is not: files, and many-to-many fields."""
    files = [field.name for field in fields if isinstance(field, models.FileField)]
    fetches_files = apps.is_installed("sdata_sync.contrib.files")
    if files and not (kind.declared.has_shared_files or fetches_files):
        yield CheckWarning(
            f"{kind!r}: of {', '.join(files)} the path is sent, not the file.",
            hint="Give the nodes one storage and set `has_shared_files = True`; or add 'sdata_sync.contrib.files' to "
            "INSTALLED_APPS, which fetches the files; or name the fields in `exclude`.",
            obj=kind.model,
            id="sdata_sync.W008",
        )
    lists = [field.name for field in kind.model._meta.many_to_many if field not in fields]
    if lists and kind.declared.fields is None:
        unnamed = [name for name in lists if name not in kind.declared.exclude]
        if unnamed:
            yield CheckWarning(
                f"{kind!r}: the many-to-many fields {', '.join(unnamed)} are not sent.",
                hint="Name all fields to send in `fields`, or name these in `exclude`. A field with a `through` model "
                "of its own belongs in `exclude`; register the `through` model.",
                obj=kind.model,
                id="sdata_sync.W009",
            )


def _check_fields(kind: Kind, fields: Sequence[models.Field[Any, Any]]) -> Iterator[CheckMessage]:
    for field in fields:
        if not field.is_relation and codec_of(field) is None:
            yield Error(
                f"{kind!r}: {field.name} is a {type(field).__name__}, for which no exact codec is known.",
                hint="Register a codec with sdata_sync.register_codec(), or name the field in `exclude`.",
                obj=kind.model,
                id="sdata_sync.E015",
            )
    yield from _check_children(kind)
    try:
        relations = kind.relations
    except (FieldDoesNotExist, AttributeError):
        return  # _check_children reports it
    for relation in relations:
        yield from _check_relation(kind, relation)
    names = kind.property_names
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Error(f"{kind!r}: two fields are called {name}.", obj=kind.model, id="sdata_sync.E016")
    yield from _check_names(kind)


def _check_relation(kind: Kind, relation: Relation) -> Iterator[CheckMessage]:
    problem = hint = ""
    if isinstance(relation, Reference | Association) and registry.of_model(relation.model) is None:
        has_natural_key = hasattr(relation.model, "natural_key") and hasattr(
            relation.model._default_manager, "get_by_natural_key"
        )
        if not has_natural_key:
            problem = f"refers to {relation.model._meta.label}, which is not registered and has no natural key"
            hint = "Register that model, give it natural keys, or name the fields to send in `fields` without this one."
    if isinstance(relation, Association) and not relation.through._meta.auto_created:
        problem = f"goes through {relation.through._meta.label}, which may have columns of its own"
        hint = "Register that model as a resource with two references, and leave the association out."
    if problem:
        yield Error(f"{kind!r}: {relation.name} {problem}.", hint=hint, obj=kind.model, id="sdata_sync.E014")


def _check_children(kind: Kind) -> Iterator[CheckMessage]:
    for name, child in kind.declared.children.items():
        model = getattr(child, "model", None)
        problem = ""
        if model is None:
            problem = f"{child.__name__} has no `model`"
        elif registry.of_model(model) is not None:
            problem = f"{model._meta.label} is also registered as a resource; its rows would be sent twice"
        elif child.children:
            problem = f"{child.__name__} has children; a child cannot have children"
        if problem:
            yield Error(f"{kind!r}: {name}: {problem}.", obj=kind.model, id="sdata_sync.E019")
            continue
        try:
            lists = [children for children in kind.child_lists if children.name == name]
        except FieldDoesNotExist as error:
            yield Error(f"{kind!r}: {error}", obj=kind.model, id="sdata_sync.E019")
            continue
        for children in lists:
            yield from _check_fields(children.kind, children.kind.model_fields)


def _check_names(kind: Kind) -> Iterator[CheckMessage]:
    known = {field.name for field in kind.model_fields}
    for name in sorted(kind.declared.field_names.keys() - known):
        yield Error(
            f"{kind!r}: field_names has {name!r}, which is no field that is sent.",
            hint=f"The fields that are sent: {', '.join(sorted(known))}.",
            obj=kind.model,
            id="sdata_sync.E022",
        )
    columns = {field.name for field in kind.model._meta.concrete_fields}
    match_on = type(kind.declared).match_on
    for name in match_on if isinstance(match_on, list | tuple) else ():
        if name not in columns:
            yield Error(
                f"{kind!r}: match_on names {name!r}, which is no column of {kind.model._meta.label}.",
                obj=kind.model,
                id="sdata_sync.E023",
            )
    if kind.declared.on_duplicate not in ("defer", "link"):
        yield Error(
            f"{kind!r}: on_duplicate is {kind.declared.on_duplicate!r}; it must be 'defer' or 'link'.",
            obj=kind.model,
            id="sdata_sync.E024",
        )
