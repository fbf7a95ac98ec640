"""Check the settings, the registered resources and the credentials of the peers, as Django's system checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import connections, models, router
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from .codecs import codec_of, linked_field
from .conf import BASE_URL_FORM, Setting, Settings, conf, shown_name
from .kind import is_made_by_database, key_parts
from .registry import registry
from .relations import Association, Reference, Relation

if TYPE_CHECKING:
    from .kind import Kind

#: The number of characters that fit into ``TrackedResource.local_key``.
MAX_KEY = 500
_SET_BASE_URL = f"Set SDATA_SYNC['BASE_URL'] to {BASE_URL_FORM}."


def register_checks() -> None:
    """Register the checks with Django."""
    register(check_settings)
    register(check_resources)
    register(check_urls, Tags.urls)
    register(check_scheme, Tags.security, deploy=True)
    register(check_peers, Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the dictionary ``SDATA_SYNC``: E001 to E008, W001, W002, W004 to W007."""
    value = getattr(settings, "SDATA_SYNC", None)
    if value is not None and not isinstance(value, dict):
        return [
            Error(
                f"SDATA_SYNC must be a dict with the key 'BASE_URL', not a value of type {type(value).__name__}.",
                hint=_SET_BASE_URL,
                id="sdata_sync.E001",
            )
        ]
    found = list(_check_values(value or {}))
    has_errors = any(message.is_serious() for message in found)
    return [*found, *_check_backend(has_errors=has_errors), *_check_sqlite()]


def _check_values(value: dict[Any, Any]) -> Iterator[CheckMessage]:
    yield from _check_names_of_settings(value)
    for setting in Settings.TABLE:
        if setting.is_required and value.get(setting.name) in (None, ""):
            yield Error(f"SDATA_SYNC[{setting.name!r}] is missing.", hint=_SET_BASE_URL, id="sdata_sync.E001")
        else:
            yield from _check_setting(setting, value)
    yield from _check_pairs(value)


def _check_names_of_settings(value: dict[Any, Any]) -> Iterator[CheckMessage]:
    known = {name for setting in Settings.TABLE for name in (setting.name, *setting.former_names)}
    for name in value:
        if name not in known:
            yield CheckWarning(
                f"SDATA_SYNC has no setting {shown_name(name)}.",
                hint=f"Remove it, or use one of these names: {', '.join(Settings.NAMES)}.",
                id="sdata_sync.W001",
            )


def _check_setting(setting: Setting[Any], value: dict[Any, Any]) -> Iterator[CheckMessage]:
    """Check the value of ``setting`` under its name and under its former names."""
    given = [name for name in (setting.name, *setting.former_names) if name in value]
    for name in given:
        hint = f"Set it to {setting.expected}"
        hint += "." if setting.is_required else f", or remove it: the default is {setting.default!r}."
        for problem in setting.problems(value[name], name):
            yield Error(problem, hint=hint, id=setting.error_id)
    if len(given) > 1:
        yield Error(
            f"SDATA_SYNC has {' and '.join(map(repr, given))}, which are names of one setting.",
            hint=f"Keep {setting.name!r} and remove the other.",
            id="sdata_sync.E008",
        )
    elif given and given[0] != setting.name:
        yield CheckWarning(
            f"SDATA_SYNC[{given[0]!r}] has a new name: {setting.name!r}.",
            hint=f"Rename the key to {setting.name!r}. The value stays the same.",
            id="sdata_sync.W005",
        )


def _check_pairs(value: dict[Any, Any]) -> Iterator[CheckMessage]:
    """Compare settings with each other; a pair with a wrong value is left out, which is an error already."""
    with suppress(ImproperlyConfigured):
        lease, timeout = Settings.lease_seconds.read(value), Settings.timeout_seconds.read(value)
        if lease <= timeout:
            yield CheckWarning(
                f"SDATA_SYNC['LEASE_SECONDS'] is {lease}, which is not longer than TIMEOUT_SECONDS, {timeout}.",
                hint="Set it to more than TIMEOUT_SECONDS: a lease must not end while its holder waits for a peer.",
                id="sdata_sync.W006",
            )
    with suppress(ImproperlyConfigured):
        largest, usual = Settings.max_page_size.read(value), Settings.page_size.read(value)
        if largest < usual:
            yield CheckWarning(
                f"SDATA_SYNC['MAX_PAGE_SIZE'] is {largest}, which is less than PAGE_SIZE, {usual}.",
                hint="Set MAX_PAGE_SIZE to PAGE_SIZE or more: this node sends pages of MAX_PAGE_SIZE entries at most.",
                id="sdata_sync.W007",
            )


def _check_backend(*, has_errors: bool) -> Iterator[CheckMessage]:
    """Check that the delivery backend can be imported and made, then run its own checks.

    A backend reads other settings. If those have errors, an exception of the backend is not reported.
    """
    from .delivery import get_backend

    try:
        path = conf.delivery
    except ImproperlyConfigured:
        return  # _check_setting reports the wrong type
    if not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        yield _unusable_backend("must be the dotted path of a delivery backend, and is no dotted path.")
        return
    try:
        import_string(path)
    except Exception as error:  # the import of a module may raise any exception
        yield _unusable_backend(f"names {path!r}, which cannot be imported: {type(error).__name__}: {error}")
        return
    try:
        yield from list(get_backend().check())
    except Exception as error:  # the code of a backend may raise any exception
        if not has_errors:
            yield _unusable_backend(f"names {path!r}, which cannot be used: {type(error).__name__}: {error}")


def _unusable_backend(problem: str) -> Error:
    return Error(
        f"SDATA_SYNC['DELIVERY'] {problem}",
        hint=f"Set it to {Settings.delivery.expected}, or remove it: the default is {Settings.delivery.default!r}.",
        id=Settings.delivery.error_id,
    )


def _check_sqlite() -> Iterator[CheckMessage]:
    for alias in connections:
        database = connections.settings[alias]
        if (
            database["ENGINE"].endswith("sqlite3")
            and database.get("OPTIONS", {}).get("transaction_mode") != "IMMEDIATE"
        ):
            yield CheckWarning(
                f"The transactions of the SQLite database {alias!r} do not begin IMMEDIATE.",
                hint="Two writers would fail with 'database is locked'. Set OPTIONS: "
                '{"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"}.',
                id="sdata_sync.W002",
            )


def check_scheme(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that ``BASE_URL`` is https if DEBUG is off: W003."""
    base_url = conf.raw.get("BASE_URL")
    if settings.DEBUG or not isinstance(base_url, str) or not base_url.lower().startswith("http://"):
        return []
    return [
        CheckWarning(
            "SDATA_SYNC['BASE_URL'] is plain http: rows and passwords would be sent unencrypted.",
            hint="Serve the dataset over https. The endpoint URL is an identity: choose it before the first peer.",
            id="sdata_sync.W003",
        )
    ]


def check_urls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the URLs of the project serve ``BASE_URL``, and that it is no URL of a kind: E028, E029."""
    try:
        base_url = conf.base_url
    except ImproperlyConfigured:
        return []  # check_settings reports it
    path, _, last = base_url.rpartition("/")
    if registry.of_kind(last) is not None:
        return [
            Error(
                f"SDATA_SYNC['BASE_URL'] ends in {last!r}, which is a kind: {base_url}",
                hint=f"Set it to the URL of the dataset, without the kind: {path}",
                id="sdata_sync.E028",
            )
        ]
    prefix = (settings.FORCE_SCRIPT_NAME or "").rstrip("/")
    asked = f"{urlsplit(base_url).path.removeprefix(prefix)}/kind/$syncDigest"
    try:
        found = resolve(asked)
    except Resolver404:
        found = None
    if found is not None and found.url_name == "sync-digest":
        return []
    return [
        Error(
            f"The URLs of the project do not serve SDATA_SYNC['BASE_URL']: {asked} "
            + ("is not among them." if found is None else f"belongs to the view {found.view_name!r}."),
            hint=f'Add to ROOT_URLCONF: path("{asked[1:].removesuffix("kind/$syncDigest")}", '
            'include("sdata_sync.urls")). If a proxy changes the path, silence this check.',
            id="sdata_sync.E029",
        )
    ]


def check_resources(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the registered resources: E010 to E019, E022 to E026, W008, W009, W011."""
    found: list[CheckMessage] = []
    kinds: dict[str, Kind] = {}
    for kind in registry:
        other = kinds.setdefault(kind.name.lower(), kind)
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
    found.extend(_check_elements())
    return found


def _check_elements() -> Iterator[CheckMessage]:
    elements: dict[tuple[str, str], Kind] = {}
    for kind in registry:
        other = elements.setdefault((kind.namespace, kind.element_name.lower()), kind)
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


def check_peers(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check what the database knows: E020, E030, W010. The checks read it, so they run with ``--database``."""
    from .models import Digest, Peer

    found: list[CheckMessage] = []
    for alias in databases or ():
        if _has_table(alias, Peer):
            found.extend(_check_credentials(alias))
        if _has_table(alias, Digest):
            found.extend(_check_known_kinds(alias))
    return found


def _has_table(alias: str, model: type[models.Model]) -> bool:
    """Return True if the database has all columns of ``model``: its migrations may not be applied yet."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        introspection = connection.introspection
        if model._meta.db_table not in introspection.table_names(cursor):
            return False
        present = {column.name for column in introspection.get_table_description(cursor, model._meta.db_table)}
    return {field.column for field in model._meta.concrete_fields} <= present


def _check_known_kinds(alias: str) -> Iterator[CheckMessage]:
    """Report endpoints that have another URL than before, and kinds of the log that no model is registered for."""
    from .models import Digest, TrackedResource
    from .sync.log.digests import moved

    for name, former in Digest.objects.using(alias).values_list("pk", "endpoint_url"):
        kind = registry.of_kind(name)
        if kind is None:
            count = TrackedResource.objects.using(alias).filter(kind=name, local_key__isnull=False).count()
            if count:
                yield CheckWarning(
                    f"The log has {count} rows of the kind {name!r}, which no registered model has.",
                    hint=f"If its model was renamed, set `path = {name!r}` in its resource: with another path each row "
                    "would be a new one to the peers. If it is not shared any more, silence this check.",
                    id="sdata_sync.W010",
                )
        elif kind.database == alias and former and former.lower() != kind.endpoint.lower():
            yield Error(moved(name, former, kind.endpoint), id="sdata_sync.E030")


def _check_credentials(alias: str) -> Iterator[CheckMessage]:
    from .models import Peer

    known = conf.raw.get("CREDENTIALS")
    if not isinstance(known, dict):
        known = {}  # check_settings reports the wrong type
    for peer in Peer.objects.using(alias).exclude(credentials=""):
        if peer.credentials not in known:
            yield Error(
                f"The peer {peer.name} logs in with the credentials {peer.credentials!r}, which do not exist.",
                hint="Add them to SDATA_SYNC['CREDENTIALS'].",
                id="sdata_sync.E020",
            )
