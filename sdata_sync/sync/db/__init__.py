"""Access the database: time, statements, locks, retries and the errors of single rows.

==============  ========================================================================
``clock``       the time in milliseconds
``statements``  chunks of values, locks of rows
``prepared``    ORM statements that are compiled once
``retry``       repeat a transaction after a deadlock
``faults``      tell errors of one row from errors of the environment
``isolation``   guard each row, so that its error concerns no other row
``owner``       name the thread that holds a lease, and tell whether its process has ended
==============  ========================================================================
"""
