"""The admin: what there is to see, and the few things a hand may do. Read-only where a hand would break it."""

from .conflict import ConflictRecordAdmin
from .deferred import DeferredEntryAdmin
from .digest import DigestAdmin
from .endpoint import EndpointAdmin
from .held import HeldVersionAdmin
from .peer import PeerAdmin
from .run import OperationAdmin, RunAdmin
from .tracked import TrackedResourceAdmin

__all__ = [
    "ConflictRecordAdmin",
    "DeferredEntryAdmin",
    "DigestAdmin",
    "EndpointAdmin",
    "HeldVersionAdmin",
    "OperationAdmin",
    "PeerAdmin",
    "RunAdmin",
    "TrackedResourceAdmin",
]
