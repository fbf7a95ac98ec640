"""Signals for applications; sent after the page's transaction has been committed, to receivers by model.

============================  ===================================================================================
``conflict_decided``          ``record``: the ``ConflictRecord`` with both versions, who won, and by which rule
``entry_deferred``            ``entry``: the ``DeferredEntry``
``resource_applied``          ``uuid``, ``local_key`` (``None`` if it was deleted), ``state``: one received version
============================  ===================================================================================

The sender is the model of the resource; ``resource`` is its ``SyncResource``. What a receiver raises is logged.
"""

from django.dispatch import Signal

conflict_decided = Signal()
entry_deferred = Signal()
resource_applied = Signal()
