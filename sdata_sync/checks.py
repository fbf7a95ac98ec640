"""System checks: what is wrong with the settings and the registered resources, before it does harm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models, router

from .conf import Settings, conf
from .fields import textual_form
from .registry import registry
from .relations import Association, Reference, Relation

if TYPE_CHECKING:
    from .resources import SyncResource

#: What fits into ``TrackedResource.local_key``.
MAX_KEY = 255


def register_checks() -> None:
    """Register the checks with Django."""
    register(check_settings)
    register(check_resources)
    register(check_scheme, Tags.security, deploy=True)
    register(check_peers, Tags.database)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001 to E006, W001, W002: the dictionary ``SDATA_SYNC``."""
    value = getattr(settings, "SDATA_SYNC", None)
    if not isinstance(value, dict) or not value.get("BASE_URL"):
        return [
            Error(
                "SDATA_SYNC['BASE_URL'] is missing.",
                hint="Set it to this node's dataset URL, like https://shop.example.com/sdata/shop/myContract/-",
                id="sdata_sync.E001",
            )
        ]
    return [
        *_check_base_url(str(value["BASE_URL"])),
        *_check_values(value),
        *_check_backend(),
        *_check_sqlite(),
    ]


def _check_base_url(url: str) -> Iterator[CheckMessage]:
    hint = "Expected a URL like https://shop.example.com/sdata/shop/myContract/-"
    try:
        parts = urlsplit(url)
        well_formed = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and bool(parts.path.strip("/"))
            and not (parts.query or parts.fragment or parts.username)
            and "$" not in url
            and not any(character.isspace() for character in url)
        )
    except ValueError:
        well_formed = False
    if not well_formed:
        yield Error(f"SDATA_SYNC['BASE_URL'] is not a dataset URL: {url!r}.", hint=hint, id="sdata_sync.E002")


def _check_values(value: dict[str, Any]) -> Iterator[CheckMessage]:
    for name in value.keys() - set(Settings.NAMES):
        yield CheckWarning(
            f"SDATA_SYNC has no setting {name!r}.",
            hint=f"There are: {', '.join(Settings.NAMES)}.",
            id="sdata_sync.W001",
        )
    if value.get("CONFLICT_PRIORITY", 5) not in range(1, 10):
        yield Error("SDATA_SYNC['CONFLICT_PRIORITY'] must be from 1 to 9.", id="sdata_sync.E003")
    for name in (
        "MAX_PAGE_SIZE",
        "OPERATION_SECONDS",
        "PAGE_SIZE",
        "MAX_BODY_BYTES",
        "TIMEOUT_SECONDS",
        "LEASE_SECONDS",
        "POLL_SECONDS",
        "MAX_BACKOFF_SECONDS",
        "MAX_DELIVERIES",
        "MAX_ENDPOINTS",
        "MAX_TICK_LEAP",
    ):
        number = value.get(name, 1)
        if isinstance(number, bool) or not isinstance(number, int | float) or number <= 0:
            yield Error(f"SDATA_SYNC[{name!r}] must be a number above 0, not {number!r}.", id="sdata_sync.E004")
    credentials = value.get("CREDENTIALS", {})
    for name in credentials:
        if set(credentials[name]) not in ({"username", "password"}, {"token"}):
            yield Error(
                f"SDATA_SYNC['CREDENTIALS'][{name!r}] must have a username and a password, or a token.",
                id="sdata_sync.E005",
            )


def _check_backend() -> Iterator[CheckMessage]:
    from .delivery import get_backend

    try:
        yield from get_backend().check()
    except Exception as error:  # an import may raise anything
        yield Error(
            f"SDATA_SYNC['DELIVERY'] names {conf.delivery!r}, which cannot be loaded: {error}",
            id="sdata_sync.E006",
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
    """W003: plain http with DEBUG off."""
    base_url = str(conf.raw.get("BASE_URL", ""))
    if settings.DEBUG or not base_url.startswith("http://"):
        return []
    return [
        CheckWarning(
            "SDATA_SYNC['BASE_URL'] is plain http: records and passwords would travel in the clear.",
            hint="Serve the dataset over https. The endpoint URL is an identity: choose it before the first peer.",
            id="sdata_sync.W003",
        )
    ]


def check_resources(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E010 to E019, E022 to E025: the registered resources."""
    found: list[CheckMessage] = []
    kinds: dict[str, SyncResource] = {}
    for resource in registry:
        other = kinds.setdefault(resource.kind.lower(), resource)
        if other is not resource:
            found.append(
                Error(
                    f"{resource!r} and {other!r} have the same path.",
                    hint="Give one of them a path of its own.",
                    obj=resource.model,
                    id="sdata_sync.E011",
                )
            )
        found.extend(_check_resource(resource))
        found.extend(_check_parents(resource))
    return found


def _check_parents(resource: SyncResource) -> Iterator[CheckMessage]:
    for parent in resource.model._meta.get_parent_list():
        if registry.of_model(parent) is not None:
            yield Error(
                f"{resource!r} and {registry.of_model(parent)!r} share the rows of {parent._meta.label}.",
                hint="Register the parent or the child, not both: each row would travel twice.",
                obj=resource.model,
                id="sdata_sync.E018",
            )


def _check_resource(resource: SyncResource) -> Iterator[CheckMessage]:
    model = resource.model
    if model._meta.swapped or not router.allow_migrate_model(resource.database, model):
        yield Error(
            f"{model._meta.label} has no table in the database {resource.database!r}, where it would be written.",
            hint="Register the model that is in use, or let the database router allow its table there.",
            obj=model,
            id="sdata_sync.E017",
        )
    if not resource.kind.isidentifier():
        yield Error(f"The path {resource.kind!r} of {resource!r} is not a name.", obj=model, id="sdata_sync.E012")
    pk: models.Field[Any, Any] = model._meta.pk
    while isinstance(pk, models.ForeignKey):
        pk = pk.target_field
    if isinstance(pk, models.TextField) or (pk.max_length or 0) > MAX_KEY:
        yield Error(
            f"{model._meta.label} has primary keys of more than {MAX_KEY} characters.",
            hint="Rows are tracked by their keys, which must fit into the column for them.",
            obj=model,
            id="sdata_sync.E025",
        )
    if resource.conflict_priority is not None and resource.conflict_priority not in range(1, 10):
        yield Error(f"The conflict_priority of {resource!r} must be from 1 to 9.", obj=model, id="sdata_sync.E013")
    try:
        fields = resource.model_fields
    except FieldDoesNotExist as error:
        names = ", ".join(field.name for field in model._meta.concrete_fields)
        yield Error(f"{resource!r}: {error}", hint=f"There are: {names}.", obj=model, id="sdata_sync.E010")
        return
    yield from _check_fields(resource, fields)


def _check_fields(resource: SyncResource, fields: Sequence[models.Field[Any, Any]]) -> Iterator[CheckMessage]:
    for field in fields:
        if not field.is_relation and textual_form(field) is None:
            yield Error(
                f"{resource!r}: {field.name} is a {type(field).__name__}, which has no textual form.",
                hint="Name the fields to share in `fields`, without it.",
                obj=resource.model,
                id="sdata_sync.E015",
            )
    yield from _check_children(resource)
    try:
        relations = resource.relations
    except (FieldDoesNotExist, AttributeError):
        return  # said by _check_children
    for relation in relations:
        yield from _check_relation(resource, relation)
    names = resource.property_names
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Error(f"{resource!r}: two fields are both called {name}.", obj=resource.model, id="sdata_sync.E016")
    yield from _check_names(resource)


def _check_relation(resource: SyncResource, relation: Relation) -> Iterator[CheckMessage]:
    problem = hint = ""
    if isinstance(relation, Reference) and registry.of_model(relation.model) is None:
        has_natural_key = hasattr(relation.model, "natural_key") and hasattr(
            relation.model._default_manager, "get_by_natural_key"
        )
        if not has_natural_key:
            problem = f"leads to {relation.model._meta.label}, which is neither registered nor has a natural key"
            hint = "Register that model, give it natural keys, or name the fields to share in `fields`, without it."
    elif isinstance(relation, Association):
        if registry.of_model(relation.model) is None:
            problem = f"leads to {relation.model._meta.label}, which is not registered"
            hint = "Register that model too."
        elif relation.field.remote_field.symmetrical:
            problem = "is symmetrical: a change of one end is one of both"
            hint = "Give it a `through` model, and register that as a resource with two references."
        elif not relation.through._meta.auto_created:
            problem = f"goes through {relation.through._meta.label}, which may have columns of its own"
            hint = "Register that model as a resource with two references, and leave the association out."
    if problem:
        yield Error(f"{resource!r}: {relation.name} {problem}.", hint=hint, obj=resource.model, id="sdata_sync.E014")


def _check_children(resource: SyncResource) -> Iterator[CheckMessage]:
    for name, child in resource.children.items():
        model = getattr(child, "model", None)
        problem = ""
        if model is None:
            problem = f"{child.__name__} has no `model`"
        elif registry.of_model(model) is not None:
            problem = f"{model._meta.label} is registered as a resource of its own too; its rows would travel twice"
        elif child.children:
            problem = f"{child.__name__} has children itself; they go one level deep"
        if problem:
            yield Error(f"{resource!r}: {name}: {problem}.", obj=resource.model, id="sdata_sync.E019")
            continue
        try:
            lists = [children for children in resource.child_lists if children.name == name]
        except FieldDoesNotExist as error:
            yield Error(f"{resource!r}: {error}", obj=resource.model, id="sdata_sync.E019")
            continue
        for children in lists:
            yield from _check_fields(children.resource, children.resource.model_fields)


def _check_names(resource: SyncResource) -> Iterator[CheckMessage]:
    known = {field.name for field in resource.model_fields}
    for name in sorted(resource.field_names.keys() - known):
        yield Error(
            f"{resource!r}: field_names has {name!r}, which is no field that travels.",
            hint=f"There are: {', '.join(sorted(known))}.",
            obj=resource.model,
            id="sdata_sync.E022",
        )
    columns = {field.name for field in resource.model._meta.concrete_fields}
    match_on = type(resource).match_on
    for name in match_on if isinstance(match_on, list | tuple) else ():
        if name not in columns:
            yield Error(
                f"{resource!r}: match_on names {name!r}, which is no column of {resource.model._meta.label}.",
                obj=resource.model,
                id="sdata_sync.E023",
            )
    if resource.on_duplicate not in ("defer", "link"):
        yield Error(
            f"{resource!r}: on_duplicate is {resource.on_duplicate!r}; it must be 'defer' or 'link'.",
            obj=resource.model,
            id="sdata_sync.E024",
        )


def check_peers(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E020: peers whose credentials do not exist. It asks the database, so it runs with ``--database``."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        if "sdata_sync_peer" in connections[alias].introspection.table_names():
            found.extend(_check_credentials(alias))
    return found


def _check_credentials(alias: str) -> Iterator[CheckMessage]:
    from .models import Peer

    known = conf.raw.get("CREDENTIALS", {})
    for peer in Peer.objects.using(alias).exclude(credentials=""):
        if peer.credentials not in known:
            yield Error(
                f"The peer {peer.name} logs in with the credentials {peer.credentials!r}, which do not exist.",
                hint="Add them to SDATA_SYNC['CREDENTIALS'].",
                id="sdata_sync.E020",
            )
