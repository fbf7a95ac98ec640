"""Define the signals for applications; they are sent after the transaction of a page is committed.

============================  ===================================================================================
``conflict_decided``          ``record``: the ``ConflictRecord`` with both versions, the winner and the rule
``entry_deferred``            ``entry``: the ``DeferredEntry``
``resource_applied``          ``uuid``, ``local_key`` (``None`` if it was deleted), ``state``: one received version
============================  ===================================================================================

The sender is the model of the resource; ``resource`` is its ``SyncResource``. An exception of a receiver is logged.
"""

from django.dispatch import Signal

conflict_decided = Signal()
entry_deferred = Signal()
resource_applied = Signal()
