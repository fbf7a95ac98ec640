"""Synchronise kinds; the folders are listed from the lowest layer to the highest.

At the node where a change is made, ``capture`` marks the resource, ``stamp`` assigns the next tick, ``select`` reads
and renders the changes that the digest of a peer lacks, and ``delivery`` sends them. At the node where a feed arrives,
``apply`` reads it, decides each entry with ``core`` and writes rows through ``content``.

==============  ========================================================================================
``port``        the services of the delivery package that ``sync`` uses
``db``          the database: clock, compiled statements, row locks, retries, errors that one row causes
``log``         the log: marks, tracked resources, digests, notifications of the delivery
``trust``       for whom a sender speaks, and how far its claims reach
``bounds``      which claims of a received digest or entry this node believes
``scope``       which resources a filtered peer may have, and which must be resent to it
``content``     rows and payloads: references, associations, children, deferred entries
``capture``     changes that are written through the ORM
``stamp``       ticks for captured changes; restore, scan, purge
``select``      the changes that a digest lacks, as pages and feeds
``identity``    links between rows and uuids
``apply``       received feeds: decide, write, answer
``runs``        results that an engine reports to this node as the source
``operations``  asynchronous calls of ``$syncSource`` and ``$syncTarget``
==============  ========================================================================================

Locks, in the order in which they are taken, at READ COMMITTED or stricter:

==========================  ============================  =======================================================
statement                   lock                          reason
==========================  ============================  =======================================================
``log.digests``             the row of the digest         ticks are assigned, and feeds applied, one after the
                                                          other; it is the first statement of its transaction, so
                                                          that every later statement sees newer data
``stamp.stamper``           marked rows that no writer    a row gets its tick when its writer has committed
                            holds
``apply.batch``             tracked rows, by primary key  an edit that commits meanwhile is seen before the decision
``log.marks``               the writer's tracked row      before its model row; writers share no row
statements of the models    model rows                    last
``delivery.lease``          none: compare and set         a lease outlives transactions, and its process
==========================  ============================  =======================================================

SQLite has one lock for all writers, taken when a transaction begins (IMMEDIATE). A transaction that the database rolls
back because of a deadlock or a serialization failure is repeated from its beginning (``db.retry``).
"""
