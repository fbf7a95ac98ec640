"""Saves per second of several processes on one kind, registered and not, with a stamper beside them.

Each writes rows of its own. Runs in a process that is set up as a node (see ``run.py``). Registered and unregistered
rounds alternate; the figures are medians of the rounds.
"""

import json
import multiprocessing
import statistics
import sys
import time

import django

django.setup()

from django.db import connections  # noqa: E402

import sdata_sync  # noqa: E402
from sdata_sync.registry import registry  # noqa: E402
from sdata_sync.sync.stamp.stamper import assign_ticks  # noqa: E402
from testproject.crm.models import Account  # noqa: E402

from .values import account  # noqa: E402

WRITERS = (1, 4, 16)
ROUNDS, SECONDS, ROWS = 5, 1.5, 20
STAMPER_PAUSE = 0.02
_fork = multiprocessing.get_context("fork")


def write(number, keys, begin, saves) -> None:
    rows = list(Account.objects.filter(pk__in=keys))
    begin.wait()
    until, count = time.perf_counter() + SECONDS, 0
    while time.perf_counter() < until:
        row = rows[count % len(rows)]
        row.city = f"City {count}"
        row.save()
        count += 1
    saves[number] = count
    connections.close_all()


def stamp(begin, stopped) -> None:
    resource = registry.of_kind("accounts")
    begin.wait()
    while not stopped.wait(STAMPER_PAUSE):
        assign_ticks(resource)
    connections.close_all()


def rate(writers: int, keys: list[list[int]], *, is_registered: bool) -> float:
    """Return the saves per second of all writers together."""
    resource_class = type(registry.of_model(Account).declared)
    if not is_registered:
        sdata_sync.unregister(Account)
    begin, stopped, saves = _fork.Barrier(writers + is_registered), _fork.Event(), _fork.Array("i", writers)
    stamper = _fork.Process(target=stamp, args=(begin, stopped))
    processes = [_fork.Process(target=write, args=(n, keys[n], begin, saves)) for n in range(writers)]
    connections.close_all()
    if is_registered:
        stamper.start()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    stopped.set()
    if is_registered:
        stamper.join()
    else:
        sdata_sync.register(Account)(resource_class)
    return sum(saves) / SECONDS


def main() -> None:
    keys = []
    for number in range(max(WRITERS)):
        rows = [account(number * ROWS + n) for n in range(ROWS)]
        for row in rows:
            row.save()
        keys.append([row.pk for row in rows])
    assign_ticks(registry.of_kind("accounts"))
    figures = {}
    for writers in WRITERS:
        rounds = [
            (rate(writers, keys, is_registered=False), rate(writers, keys, is_registered=True)) for _ in range(ROUNDS)
        ]
        figures[writers] = {
            "plain": statistics.median(plain for plain, _ in rounds),
            "registered": statistics.median(registered for _, registered in rounds),
            "share": statistics.median(registered / plain for plain, registered in rounds),
        }
    json.dump(figures, sys.stdout)


main()
