"""Suppress the capture of resources that are being applied; all other changes are captured.

``is_applying`` tells the application's own ``save()`` and receivers that a received change is being applied.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from django.db import models

from ...models import Peer
from ..db.isolation import override


@dataclass(frozen=True)
class _Applied:
    kind: str
    keys: set[str]
    instances: tuple[models.Model, ...] = field(default=())
    outer: "_Applied | None" = None


_applied: ContextVar[_Applied | None] = ContextVar("sdata_sync_applied", default=None)


def applying(
    kind: str, *, keys: Iterable[str] = (), instances: tuple[models.Model, ...] = ()
) -> AbstractContextManager[None]:
    """Do not capture changes of these resources inside the ``with`` block; blocks may be nested.

    The resources are named by their local ``keys``, and by ``instances`` that may not have a key yet. Changes of other
    resources are captured: if a signal receiver of the application changes another row while an entry is applied, that
    is a change of this node.
    """
    return override(_applied, _Applied(kind, set(keys), instances, _applied.get()))


@dataclass(frozen=True)
class Applying:
    """Describe the received change that is being applied: its ``kind``, and the URL ``source`` that it came from.

    ``source`` is the URL of the kind at the sender. It is empty if the change was stored here before and is applied
    now, for example a deferred entry.
    """

    kind: str
    source: str = ""

    @cached_property
    def peer(self) -> str:
        """Return the name of the peer that the change came from; empty if it is not known (a query)."""
        name = Peer.objects.filter(url__iexact=self.source.rpartition("/")[0]).values_list("name", flat=True).first()
        return name or ""


_source: ContextVar[tuple[str, str]] = ContextVar("sdata_sync_source", default=("", ""))


def receiving_from(source: str, sender: str = "") -> AbstractContextManager[None]:
    """Name the URL ``source`` as the origin of the changes that are applied inside the block, and their ``sender``."""
    return override(_source, (source, sender))


def present_sender() -> str:
    """Return the name of the login or peer whose changes are being applied, as a column holds it; empty for none."""
    return _source.get()[1][:150]


def is_applying() -> Applying | None:
    """Return what is being applied, ``None`` while no received change is applied in this thread or task.

    Ask it in ``save()`` and in receivers that must not act twice, for example before an e-mail is sent or a row of
    history is written: the node at which the change was made has done that.
    """
    applied = _applied.get()
    return None if applied is None else Applying(applied.kind, _source.get()[0])


class _Deleting(Enum):
    LOCAL = "a change of this node"
    RECEIVED = "a deletion that was received"
    WITHDRAWN = "a row that is withdrawn from this node only"


_deleting: ContextVar[_Deleting] = ContextVar("sdata_sync_deleting", default=_Deleting.LOCAL)


def applying_deletions() -> AbstractContextManager[None]:
    """Treat deletions inside the block as received: a reference that they empty is no change of the referring row."""
    return override(_deleting, _Deleting.RECEIVED)


def is_applying_deletions() -> bool:
    """Return True while received deletions are applied."""
    return _deleting.get() is _Deleting.RECEIVED


def withdrawing() -> AbstractContextManager[None]:
    """Treat deletions inside the block as withdrawals from this node: the referring rows must not change by them."""
    return override(_deleting, _Deleting.WITHDRAWN)


def is_withdrawing() -> bool:
    """Return True while rows are deleted that are withdrawn from this node only."""
    return _deleting.get() is _Deleting.WITHDRAWN


def is_applied(kind: str, instance: models.Model | None, key: str | None) -> bool:
    """Return True if the resource with this ``instance`` or local ``key`` is being applied at present."""
    return _applied_for(kind, instance, key) is not None


def add_applied_key(kind: str, instance: models.Model, key: str) -> None:
    """Add the new local ``key`` of a row that is being applied, so that writes by that key are not captured either."""
    applied = _applied_for(kind, instance, key)
    if applied is not None:
        applied.keys.add(key)


def _applied_for(kind: str, instance: models.Model | None, key: str | None) -> _Applied | None:
    applied = _applied.get()
    while applied is not None:
        if applied.kind == kind and (key in applied.keys or any(instance is other for other in applied.instances)):
            return applied
        applied = applied.outer
    return None


_receivers: list[Any] = []


def register_receivers(receivers: Iterable[Any]) -> None:
    """Register the signal receivers of this app, so that ``is_own_receiver`` tells them from the application's."""
    _receivers.extend(receivers)


def is_own_receiver(receiver: Any) -> bool:
    """Return True if ``receiver``, which receives a signal of a model, belongs to this app."""
    return receiver in _receivers
