"""Define the tables: digests, the log of changes, peers, streams, operations and runs."""

from .child import ChildResource
from .conflict import ConflictRecord
from .deferred import DeferredEntry, DeletionCondition
from .digest import Digest, DigestEntry
from .endpoint import Endpoint
from .held import HeldVersion
from .operation import Operation
from .peer import Peer
from .pending import PendingReference
from .run import Run, RunResult
from .scoped import ScopedResource
from .stream import Stream
from .tracked import TrackedResource

__all__ = [
    "ChildResource",
    "ConflictRecord",
    "DeferredEntry",
    "DeletionCondition",
    "Digest",
    "DigestEntry",
    "Endpoint",
    "HeldVersion",
    "Operation",
    "Peer",
    "PendingReference",
    "Run",
    "RunResult",
    "ScopedResource",
    "Stream",
    "TrackedResource",
]
