"""Check what the database knows: the peers, and the kinds of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.db import connections, models

from ..conf import conf
from ..core.text import fold
from ..registry import registry

if TYPE_CHECKING:
    pass


def check_peers(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check what the database knows: E020, E030, W010. The checks read it, so they run with ``--database``."""
    from ..models import Digest, Peer

    found: list[CheckMessage] = []
    for alias in databases or ():
        if has_table(alias, Peer):
            found.extend(_check_credentials(alias))
        if has_table(alias, Digest):
            found.extend(_check_known_kinds(alias))
    return found


def has_table(alias: str, model: type[models.Model]) -> bool:
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
    from ..models import Digest, TrackedResource
    from ..sync.log.digests import moved

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
        elif kind.database == alias and former and fold(former) != fold(kind.endpoint):
            yield Error(moved(name, former, kind.endpoint), id="sdata_sync.E030")


def _check_credentials(alias: str) -> Iterator[CheckMessage]:
    from ..models import Peer

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
