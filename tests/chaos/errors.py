"""Errors of a database that are hard to come by: a wrapper raises them while a file asks for it, and counts them."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from django.db import OperationalError
from django.db.backends.signals import connection_created

#: How often the file is looked for.
LOOK_SECONDS = 0.2


class _Cause(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def _disk_full(vendor: str) -> OperationalError:
    if vendor == "postgresql":
        error = OperationalError("could not extend file: No space left on device")
        error.__cause__ = _Cause("53100")
        return error
    return OperationalError(1021, "Disk full") if vendor == "mysql" else OperationalError("database or disk is full")


def _lock_timeout(vendor: str) -> OperationalError:
    if vendor == "postgresql":
        error = OperationalError("canceling statement due to lock timeout")
        error.__cause__ = _Cause("55P03")
        return error
    return OperationalError(1205, "Lock wait timeout") if vendor == "mysql" else OperationalError("database is locked")


ERRORS = {"disk full": _disk_full, "lock timeout": _lock_timeout}


class Wrapper:
    """Around every statement: ``folder/errors`` holds how likely one that writes is to fail."""

    def __init__(self, folder: Path) -> None:
        self._send_operation, self._count = folder / "errors", folder / f"errors-{os.getpid()}"
        self._looked, self._rate = 0.0, 0.0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                self._rate = float(self._send_operation.read_text() or 0)
            except (OSError, ValueError):
                self._rate = 0.0
        if self._rate and sql.startswith(("INSERT", "UPDATE", "DELETE")) and random.random() < self._rate:
            name = random.choice(list(ERRORS))
            with self._count.open("a") as file:
                file.write(f"{name}\n")
            raise ERRORS[name](context["connection"].vendor)
        return execute(sql, params, many, context)


def install() -> None:
    """Wrap every connection from now on."""
    wrapper = Wrapper(Path(os.environ["SDATA_CHAOS"]))

    def wrap(*, connection: Any, **kwargs: Any) -> None:
        if not any(isinstance(present, Wrapper) for present in connection.execute_wrappers):
            connection.execute_wrappers.append(wrapper)

    connection_created.connect(wrap, weak=False)
