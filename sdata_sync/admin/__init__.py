"""Show the state of synchronisation in the admin, and offer actions.

============  ======================================
``readonly``  pages without editing
``peer``      peers and their streams
``digest``    digests
``endpoint``  endpoints
``tracked``   tracked resources
``conflict``  conflicts
``deferred``  deferred entries
``oversize``  versions that are too large for a peer
``link``      linking of rows
``run``       runs and operations
============  ======================================
"""

from .conflict import ConflictRecordAdmin
from .deferred import DeferredEntryAdmin
from .digest import DigestAdmin
from .endpoint import EndpointAdmin
from .oversize import OversizeVersionAdmin
from .peer import PeerAdmin
from .run import OperationAdmin, RunAdmin
from .tracked import TrackedResourceAdmin

__all__ = [
    "ConflictRecordAdmin",
    "DeferredEntryAdmin",
    "DigestAdmin",
    "EndpointAdmin",
    "OperationAdmin",
    "OversizeVersionAdmin",
    "PeerAdmin",
    "RunAdmin",
    "TrackedResourceAdmin",
]
