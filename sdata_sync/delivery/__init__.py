"""Delivery: bringing peers level. A backend decides when and where; the way is always the same.

==============  ==========================================================================================
``base``        what a backend is, and which one the setting ``DELIVERY`` names
``thread``      the default: a thread of the process for each peer
``worker``      for ``sync_deliver`` as a process of its own
``courier``     one peer brought level: immediate when contiguous, catch-up when not
``streams``     who may deliver a kind to a peer, and how it went
``client``      HTTP to a peer
``pulling``     what a peer has and this node lacks
``reporting``   telling the source what became of its changes
``engine``      both directions, all kinds, every peer; or between two that are both elsewhere
``recovery``    getting back what this node lost in a restore
``verifying``   comparing contents with a peer
``watch``       counting what passes
==============  ==========================================================================================
"""

from .base import connect, get_backend

__all__ = ["connect", "get_backend"]
