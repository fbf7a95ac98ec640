"""Send the signals of this app that report the outcome of a page, after the page is committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.dispatch import Signal

from ...core.state import SyncState
from ...models import ConflictRecord, DeferredEntry, Endpoint, TrackedResource
from ...signals import conflict_decided, entry_deferred, resource_applied

if TYPE_CHECKING:
    from ...kind import Kind


def send_signals(
    kind: Kind, conflicts: Sequence[ConflictRecord], versions: Sequence[tuple[TrackedResource, bool]]
) -> None:
    """Send the signals for ``conflicts`` and ``versions`` after the present transaction is committed.

    ``versions`` are the resources whose received versions were stored, each with True if the version is deferred.
    """
    model = kind.model
    if conflicts and conflict_decided.has_listeners(model):
        _after_commit(kind, partial(_send_conflicts, kind, list(conflicts)))
    waiting = [tracked.uuid for tracked, is_deferred in versions if is_deferred]
    if waiting and entry_deferred.has_listeners(model):
        _after_commit(kind, partial(_send_deferred, kind, waiting))
    if resource_applied.has_listeners(model):
        applied = [_applied(tracked) for tracked, is_deferred in versions if not is_deferred]
        _after_commit(kind, partial(_send_applied, kind, applied))


def _after_commit(kind: Kind, send: Callable[[], None]) -> None:
    transaction.on_commit(send, using=kind.database, robust=True)


def _send(signal: Signal, kind: Kind, **what: Any) -> None:
    signal.send_robust(sender=kind.model, resource=kind.declared, **what)


def _send_conflicts(kind: Kind, conflicts: list[ConflictRecord]) -> None:
    for record in conflicts:
        _send(conflict_decided, kind, record=record)


def _send_deferred(kind: Kind, uuids: list[Any]) -> None:
    entries = DeferredEntry.objects.using(kind.database).filter(resource__kind=kind.name)
    for entry in entries.filter(resource__uuid__in=uuids).select_related("resource"):
        _send(entry_deferred, kind, entry=entry)


def _applied(tracked: TrackedResource) -> dict[str, Any]:
    where = {"endpoint_id": tracked.endpoint_id, "tick": tracked.tick, "stamp": tracked.stamp, "user": tracked.user}
    return {"uuid": tracked.uuid, "local_key": tracked.local_key, **where}


def _send_applied(kind: Kind, applied: list[dict[str, Any]]) -> None:
    urls = dict(Endpoint.objects.using(kind.database).values_list("pk", "url"))
    for item in applied:
        state = SyncState(
            endpoint=urls.get(item["endpoint_id"], ""), tick=item["tick"] or 0, stamp=item["stamp"], user=item["user"]
        )
        _send(resource_applied, kind, uuid=item["uuid"], local_key=item["local_key"], state=state)
