"""What is kept in the database: the digests, the log of changes, the peers."""

from .deferred import DeferredEntry
from .digest import Digest, DigestEntry
from .endpoint import Endpoint
from .peer import Peer
from .stream import Stream
from .tracked import TrackedResource

__all__ = ["DeferredEntry", "Digest", "DigestEntry", "Endpoint", "Peer", "Stream", "TrackedResource"]
