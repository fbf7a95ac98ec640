"""Store the log, the digests, the peers and operations.

=============  ==============================================
``columns``    the columns that no field of Django has
``endpoint``   endpoints by URL
``digest``     the digest of each kind
``tracked``    the log: one row for each resource; uuids of children
``peer``       peers
``stream``     the delivery of one kind to one peer
``conflict``   decided conflicts
``deferred``   entries that wait, and what deletions wait for
``pending``    references whose target has not arrived
``scoped``     resources that a filtered peer has
``oversize``   versions that are too large for a peer
``operation``  asynchronous calls
``run``        results that engines report
=============  ==============================================
"""

from .conflict import ConflictRecord
from .deferred import DeferredEntry, DeletionCondition
from .digest import Digest, DigestEntry
from .endpoint import Endpoint
from .operation import Operation
from .oversize import OversizeVersion
from .peer import Peer
from .pending import PendingReference
from .run import Run, RunResult
from .scoped import ScopedResource
from .stream import Stream
from .tracked import ChildResource, TrackedResource

__all__ = [
    "ChildResource",
    "ConflictRecord",
    "DeferredEntry",
    "DeletionCondition",
    "Digest",
    "DigestEntry",
    "Endpoint",
    "Operation",
    "OversizeVersion",
    "Peer",
    "PendingReference",
    "Run",
    "RunResult",
    "ScopedResource",
    "Stream",
    "TrackedResource",
]
