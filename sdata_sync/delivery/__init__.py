"""Deliver changes to peers and pull theirs. A backend decides when and in which process.

================  ==================================================================
``client``        HTTP requests to a peer
``progress``      count the entries of a run
``lease``         the right to deliver a kind to a peer; the outcome of deliveries
``waiting``       the entries that wait at a peer: deferred or refused there
``pull``          pull the changes of a peer
``recover``       get back changes that were lost in a restore
``push``          push one kind to one peer: immediate feeds or a catch-up
``session``       deliver to one peer, all kinds
``catchup``       catch up with peers in both directions; bridge two endpoints
``audit``         compare the content of a kind with a peer
``match``         match rows that two nodes had before they met
``purge_all``     purge tombstones that every peer has
``probe``         ask a new peer whether changes can be exchanged with it
``threads``       threads, pools and notifications
``backends``      the backends that the setting ``DELIVERY`` names
``monitoring``    status, health and metrics
``former_paths``  aliases of backends under their former dotted paths
================  ==================================================================
"""

from pathlib import Path

from .backends.base import connect, get_backend

__all__ = ["connect", "get_backend"]

# DELIVERY may name a backend by its former dotted path, sdata_sync.delivery.thread.ThreadDelivery for instance.
__path__.append(str(Path(__file__).parent / "former_paths"))
