"""Register the models with the Django admin.

Most pages are read-only, because a manual edit of a protocol table would break the synchronisation. Actions offer the
decisions that an administrator can make.
"""

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
