"""Access the database.

==============  ========================================================================
``clock``       the time in milliseconds
``statements``  chunks of values, locks of rows
``prepared``    ORM statements that are compiled once
``retry``       repeat a transaction after a deadlock
``faults``      tell errors of one row from errors of the environment
``isolation``   guard each row, so that its error concerns no other row
``owner``       name the thread that holds something, and tell whether its process ended
==============  ========================================================================
"""
