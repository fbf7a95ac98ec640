"""Keep the log: one ``TrackedResource`` for each resource, one digest for each kind.

===============  ============================================================
``marks``        mark a resource as changed, in the transaction of the writer
``tracked``      write and read tracked resources, find rows without one
``digests``      load, lock and save the digest of a kind
``suppression``  capture nothing while a received row is written
``wakeup``       wake the delivery after a commit
``events``       send the signals of this app after a commit
===============  ============================================================
"""
