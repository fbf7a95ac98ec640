"""Check the settings, and whether the URLs of the project serve ``BASE_URL``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.urls import Resolver404, resolve
from django.utils.module_loading import import_string

from ..conf import BASE_URL_FORM, Setting, Settings, conf, shown_name
from ..registry import registry

if TYPE_CHECKING:
    pass

_SET_BASE_URL = f"Set SDATA_SYNC['BASE_URL'] to {BASE_URL_FORM}."


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
    from ..delivery import get_backend

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
