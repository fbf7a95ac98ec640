"""Keep the log: one ``TrackedResource`` for each resource, one digest for each kind.

===============  ============================================================
``keys``         write and read primary keys as local keys
``marks``        mark a resource as changed, in the transaction of the writer
``tracked``      write and read tracked resources, find rows without one
``digests``      load, lock and save the digest of a kind
``suppression``  do not capture the rows that are being applied
``wakeup``       notify the delivery after a commit
``events``       send the signals of this app after a commit
===============  ============================================================
"""
