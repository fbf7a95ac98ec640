"""Run work in threads.

=============  ======================================================
``loop``       a thread that acts when it is woken, and after a pause
``pool``       the loops of one backend in one process
``overlap``    run two functions at the same time
``notifier``   pass wake-ups to another process
``pg_notify``  NOTIFY and LISTEN of PostgreSQL
=============  ======================================================
"""
