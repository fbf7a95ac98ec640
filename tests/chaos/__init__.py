"""``make chaos``: three nodes, eight writers, and everything that may go wrong going wrong. In the end they are level.

==============  ======================================================================================
``run``         lets it happen, and looks at the end whether anything was lost or doubled
``proxy``       stands before each node and breaks what passes
``services``    a PostgreSQL and a Redis of our own, to be crashed
``errors``      database errors that a wrapper raises
``writer``      a process that writes, and keeps a log of what it was told was written
``ledger``      what must be there in the end, from those logs
==============  ======================================================================================
"""
