"""The admin: digests, peers, tracked resources, deferred entries. Read-only where a hand would break it."""

from .deferred import DeferredEntryAdmin
from .digest import DigestAdmin
from .endpoint import EndpointAdmin
from .peer import PeerAdmin
from .tracked import TrackedResourceAdmin

__all__ = ["DeferredEntryAdmin", "DigestAdmin", "EndpointAdmin", "PeerAdmin", "TrackedResourceAdmin"]
