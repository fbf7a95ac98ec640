"""The time from ``save()`` returning to the row being visible in a database, one save after the other."""

import sqlite3
import time
from collections.abc import Callable

import sdata_sync
from sdata_sync.registry import registry
from testproject.crm.models import Account

from .values import account


def run(database: str, saves: int) -> list[float]:
    """Return the milliseconds of each of ``saves``; the first ones, which open connections, are not counted."""
    has_come = _progress(database)
    millis = []
    for number in range(saves + 20):
        row = account(number)
        row.name = f"Latency {time.monotonic_ns()}"
        row.save()
        started = time.perf_counter()
        while not has_come(row.name):
            if time.perf_counter() - started > 20:
                raise TimeoutError(row.name)
            time.sleep(0.0002)
        millis.append((time.perf_counter() - started) * 1000)
        # People do not save in lockstep with the delivery.
        time.sleep(0.002)
    return millis[20:]


def _progress(database: str) -> Callable[[str], bool]:
    """Return what tells whether an account of a name is there, on a connection of its own."""
    if database.startswith("sqlite"):
        path = database.removeprefix("sqlite:///")
        watch = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20, isolation_level=None)
        return lambda name: bool(watch.execute("SELECT 1 FROM crm_account WHERE name = ?", [name]).fetchone())
    import psycopg

    cursor = psycopg.connect(database, autocommit=True).cursor()
    return lambda name: bool(cursor.execute("SELECT 1 FROM crm_account WHERE name = %s", [name]).fetchone())


def run_raw(database: str, saves: int) -> list[float]:
    """Return the same for a model that is not registered, watched in the database it is saved to."""
    resource_class = type(registry.of_model(Account).declared)
    sdata_sync.unregister(Account)
    try:
        return run(database, saves)
    finally:
        sdata_sync.register(Account)(resource_class)
