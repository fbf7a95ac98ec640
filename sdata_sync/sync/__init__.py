"""The way of a change, in order.

At the node where it is made:

1. ``capture``: a save, a delete or a bulk write marks the tracked resource as changed (``marks``).
2. ``numbering``: the stamper gives every committed mark the next tick and moves the digest on (``digests``).
3. ``pages``: what a peer's digest lacks is selected, read and rendered; ``delivery`` sends it.

At the node where it arrives:

4. ``receiving``: a posted feed is read, its ticks are checked, all in one transaction.
5. ``applying``: a batch of entries (``versions``) is decided by ``core``; conflicts are resolved (``deciding``), ticks
   of our own are given where others must learn the outcome (``recording``).
6. ``storing``, by ``changes`` and ``writing``: rows are created, updated and deleted, in bulk where nobody listens;
   ``joining`` does what concerns more than one resource.
7. ``deferring``: what could not be written is kept, sent on, and tried again.
8. The digest advances, and the sender is told what became of every entry (``results``).

Beside the way: ``sources``, ``operations`` and ``runs`` answer engines elsewhere; ``existing`` and ``scanning`` find
rows that no signal told of; ``hearing`` and ``rejoining`` bring back a node that was restored; ``disputes`` keeps
conflicts for people, ``suspecting`` what clocks and doubled names give away; ``purging`` forgets tombstones;
``retrying`` does again what the database has undone.

``relations`` is how rows lead to others: references, associations, children. ``linking``, ``uniting`` and ``merging``
make one resource of what is one thing; ``scopes`` and ``parts`` are for peers that may have only some of the rows;
``catalogue`` shows resources to whoever opens their URLs; ``upgrading`` takes over what an older schema kept.

Locks, in the order in which they are taken, at READ COMMITTED or stricter:

==========================  ============================  =======================================================
statement                   lock                          why
==========================  ============================  =======================================================
``digests.lock_digest``     the digest's row              ticks are given, and feeds applied, one after the other;
                                                          the first statement of its transaction, so that what is
                                                          read after it is not older than the lock
``numbering``               marked rows, those free       a writer's row is numbered when the writer has committed
``versions``                tracked rows, by primary key  an edit that commits meanwhile is seen before the decision
``marks``                   the writer's tracked row      before its model row, as above; no row that writers share
the models' own statements  model rows                    last
``delivery.streams``        none: compare and set         a lease outlives transactions, and the process that has it
==========================  ============================  =======================================================

SQLite has one lock for all writers, taken when a transaction begins (IMMEDIATE). Whatever a database undoes, a deadlock
or a serialization failure, is done again from its beginning (``retrying``).
"""
