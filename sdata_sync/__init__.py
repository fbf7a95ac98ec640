"""Keep the models of a Django project in sync with other applications over SData 1.1 synchronisation.

::

    @sdata_sync.register(Account)
    class AccountSync(sdata_sync.SyncResource):
        fields = ["name", "email"]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codecs import Codec, register_codec
    from .conflicts import Conflict
    from .managers import SyncManager, SyncQuerySet
    from .registry import register, registered, unregister
    from .resources import SyncResource
    from .sync.log.suppression import is_applying
    from .users import acting_as

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "Conflict",
    "SyncManager",
    "SyncQuerySet",
    "SyncResource",
    "acting_as",
    "is_applying",
    "register",
    "register_codec",
    "registered",
    "unregister",
]

_HOMES = {
    "Codec": "codecs",
    "Conflict": "conflicts",
    "SyncManager": "managers",
    "SyncQuerySet": "managers",
    "SyncResource": "resources",
    "acting_as": "users",
    "is_applying": "sync.log.suppression",
    "register": "registry",
    "register_codec": "codecs",
    "registered": "registry",
    "unregister": "registry",
}


def __getattr__(name: str) -> Any:
    # Imported on demand: sdata_sync.core and sdata_sync.atom are usable without Django.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
