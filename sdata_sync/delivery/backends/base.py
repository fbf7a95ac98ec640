"""Define the interface of delivery backends, which are chosen by a setting as e-mail backends are in Django."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage
from django.core.signals import request_started, setting_changed
from django.utils.module_loading import import_string

from ...conf import conf
from ...sync.operations import carry_out_in_thread
from ...sync.port import connect as connect_port
from ..recover import check_peers

if TYPE_CHECKING:
    from ...kind import Kind

_UID = "sdata_sync.delivery"


class DeliveryBackend:
    """Decides when and in which process changes are delivered to peers.

    The durable state is in the database: a lost wake-up costs time and never data.
    """

    def wake(self, kind: str, is_own: bool) -> None:
        """Note that a change of ``kind`` was committed in this process; return at once.

        It is called in the thread of the writer. ``is_own`` is False for a received change, which concerns only peers
        that this node relays to.
        """
        raise NotImplementedError

    def serve(self) -> None:
        """Note that this process has begun to answer requests. Changes from before its start may be undelivered."""

    def carry_out(self, operation: int) -> None:
        """Start the operation with the primary key ``operation`` in a thread of this process; return at once."""
        carry_out_in_thread(operation)

    def check(self) -> Sequence[CheckMessage]:
        """Return the system check messages about the settings of this backend."""
        return []


@lru_cache(maxsize=1)
def _backend(path: str) -> DeliveryBackend:
    backend: DeliveryBackend = import_string(path)()
    return backend


def get_backend() -> DeliveryBackend:
    """Return the backend that the setting ``DELIVERY`` names; each call returns the same instance.

    Raises:
        ImportError: the setting names no class that can be imported.
    """
    return _backend(conf.delivery)


class _PresentBackend:
    """Connects ``sync`` with the backend that the setting ``DELIVERY`` names at the moment of each call."""

    def wake(self, kind: str, is_own: bool) -> None:
        get_backend().wake(kind, is_own)

    def check_peers(self, kind: Kind) -> bool:
        return check_peers(kind)

    def carry_out(self, operation: int) -> None:
        get_backend().carry_out(operation)


def connect() -> None:
    """Connect the delivery backend with ``sync``, with requests and with changes of the settings."""
    connect_port(_PresentBackend())
    request_started.connect(_on_first_request, dispatch_uid=_UID)
    setting_changed.connect(_on_setting_changed, dispatch_uid=_UID)


def _on_first_request(**kwargs: Any) -> None:
    request_started.disconnect(dispatch_uid=_UID)
    get_backend().serve()


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting == "SDATA_SYNC":
        _backend.cache_clear()
