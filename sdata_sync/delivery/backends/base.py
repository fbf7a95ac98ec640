"""What a delivery backend is, as an e-mail backend is in Django; and which one is in use."""

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
from ..restore import check_peers

if TYPE_CHECKING:
    from ...kind import Kind

_UID = "sdata_sync.delivery"


class DeliveryBackend:
    """Decides when and where peers are brought level.

    The durable state is in the database: a wake-up that is lost costs time, never data.
    """

    def wake(self, kind: str, is_own: bool) -> None:
        """Note that something of ``kind`` was committed in this process; called by the writer, so return at once.

        ``is_own`` is false for what was only received from others: that concerns peers that are relayed to.
        """
        raise NotImplementedError

    def serve(self) -> None:
        """Note that this process has begun to answer requests: it lives on, and may have been away."""

    def carry_out(self, operation: int) -> None:
        """Have the asynchronous call with the primary key ``operation`` carried out; return at once."""
        carry_out_in_thread(operation)

    def check(self) -> Sequence[CheckMessage]:
        """Return what is wrong with the settings for this backend."""
        return []


@lru_cache(maxsize=1)
def _backend(path: str) -> DeliveryBackend:
    backend: DeliveryBackend = import_string(path)()
    return backend


def get_backend() -> DeliveryBackend:
    """Return the backend that the setting ``DELIVERY`` names, the same one each time.

    Raises:
        ImportError: there is no such backend.
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
