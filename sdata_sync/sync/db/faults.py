"""Tell exceptions that concern the whole page from exceptions of the row that was being read or written.

A fault of the environment (lost connection, deadlock, disk, memory, missing table, missing permission) ends the page,
and the page is repeated later. Every other exception is a fault of one row: the row is held back or deferred, and
the page goes on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from django.db import Error as DatabaseProblem
from django.db import InterfaceError, OperationalError, models

from ...atom.text import replace_forbidden
from ...core.text import one_line
from ...exceptions import DeliveryInterrupted

#: The maximum length of a description, in characters.
MAX_DESCRIPTION = 1000
#: The maximum number of protected rows that a description names.
NAMED_ROWS = 3

#: PostgreSQL: classes of SQLSTATE that mean a fault of the environment.
_SQLSTATE_CLASSES = frozenset(
    [
        "08",  # connection
        "25",  # transaction state, among them "read only" and "aborted"
        "28",  # login
        "40",  # deadlock, serialization failure
        "53",  # disk, memory, connections
        "57",  # cancelled, shut down
        "58",  # operating system
    ]
)
#: PostgreSQL: missing database, schema, table, column, type; permission; lock; damaged file.
_SQLSTATES = frozenset(
    ["3D000", "3F000", "42P01", "42703", "42704", "42501", "55P03", "55006", "XX001", "XX002"],
)
#: MySQL and MariaDB: error numbers that mean a fault of the environment.
_ERRNOS = frozenset(
    [
        *(1020, 1205, 1213, 1305),  # changed since read, lock timeout, deadlock, savepoint gone with the transaction
        *(1021, 1026, 1030, 1114),  # disk
        *(1037, 1038, 1041, 1135),  # memory
        *(1040, 1044, 1045, 1047, 1053, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1317, 1927),  # connection, login
        *(1036, 1290, 1792, 1836),  # read only
        *(1046, 1049, 1054, 1142, 1143, 1146, 1227, 1370),  # missing database, column, table, permission
        *(1969, 3024),  # time limit
        *(2002, 2003, 2006, 2013, 2014, 2055),  # connection, numbers of the client library
    ]
)
#: SQLite: primary result codes. PERM, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN,
#: PROTOCOL, SCHEMA, AUTH, NOTADB.
_SQLITE_CODES = frozenset([3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17, 23, 26])
#: SQLite: texts of faults of the environment that have the general code 1, or no code if the driver raises them.
_SQLITE_TEXTS = ("no such table", "no such column", "no such view", "has no column named", "closed database")
#: Operating system: error numbers of disks, memory and open files.
_OS_ERRNOS = frozenset(
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO],
)

_fatal: list[type[Exception]] = []


def register_fatal(error: type[Exception]) -> None:
    """Make exceptions of the class ``error`` end the page; a task queue registers the exception of its time limit."""
    _fatal.append(error)


def ends_page(error: BaseException) -> bool:
    """Return True if ``error`` concerns the whole page and not only the row that was being read or written."""
    if not isinstance(error, Exception) or isinstance(error, (*_fatal, MemoryError, DeliveryInterrupted)):
        return True
    if isinstance(error, DatabaseProblem):
        return _is_of_environment(error)
    return isinstance(error, OSError) and error.errno in _OS_ERRNOS


def is_lost_connection(error: Exception) -> bool:
    """Return True if ``error`` means that the database connection is lost, or if its class is registered as fatal."""
    return isinstance(error, (*_fatal, InterfaceError))


def breaks_transaction(error: Exception) -> bool:
    """Return True if ``error`` only means that an earlier statement has broken the transaction (PostgreSQL)."""
    return getattr(error.__cause__, "sqlstate", None) == "25P02"


def _is_of_environment(error: Exception) -> bool:
    cause: Any = error.__cause__
    text = _text_of(error)
    number = error.args[0] if error.args else None
    if isinstance(number, int) and number:  # MySQL and MariaDB; their SQLSTATEs are too coarse
        return number in _ERRNOS
    state = getattr(cause, "sqlstate", None)
    if state:
        # A row-level security policy that refuses one row has the SQLSTATE of a missing permission.
        is_row_policy = state == "42501" and "row-level security policy" in text
        return (state[:2] in _SQLSTATE_CLASSES or state in _SQLSTATES) and not is_row_policy
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in _SQLITE_CODES or any(part in text for part in _SQLITE_TEXTS)
    if type(cause).__module__.startswith("sqlite3"):  # raised by the driver: a value that it cannot bind or decode
        return any(part in text for part in _SQLITE_TEXTS)
    return isinstance(error, OperationalError | InterfaceError)


def describe(error: BaseException) -> str:
    """Return the class and the text of ``error`` on one line, without characters that XML forbids.

    If ``__str__`` of the exception raises, a fixed text replaces its text.
    """
    text = f"{type(error).__name__}: {_text_of(error)}"[:MAX_DESCRIPTION]
    return replace_forbidden(one_line(text).rstrip(": "))


def _text_of(error: BaseException) -> str:
    if isinstance(error, models.ProtectedError | models.RestrictedError):
        # The text of the exception contains the __repr__ of every row, which may raise or load much data.
        rows = getattr(error, "protected_objects", None) or getattr(error, "restricted_objects", None) or ()
        named = [name_of(row) for _, row in zip(range(NAMED_ROWS), rows, strict=False)]
        return f"{error.args[0]}{': ' if named else ''}{', '.join(named)}"
    return _safely(lambda: str(error), "(its text cannot be shown)")


def name_of(row: Any) -> str:
    """Return the model and the primary key of ``row``, and its text unless its ``__str__`` raises."""
    text = _safely(lambda: str(row), "")
    label = f"{row._meta.label} {row.pk!r}"
    return f"{label} ({text[:80]})" if text else label


def _safely(say: Callable[[], str], otherwise: str) -> str:
    try:
        return str(say())
    except Exception as error:  # an application's __str__ may raise anything
        if ends_page(error):
            raise
        return otherwise
