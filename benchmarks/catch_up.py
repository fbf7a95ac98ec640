"""Catching up between two server processes: from nothing to level, little among much, nothing at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from testproject.nodes import Node, are_level

SIZES = [int(size) for size in os.environ.get("SDATA_BENCH_SIZES", "1000 10000 50000 200000").split()]
AMONG = 50_000

_FILL = """
import time
from benchmarks.values import account
rows = [account(number) for number in range({rows})]
started = time.perf_counter()
with transaction.atomic():
    Account.objects.bulk_create(rows, batch_size=1000)
result = time.perf_counter() - started
del rows
"""

_PASS = """
import time
from sdata_sync.delivery.catchup import catch_up
from sdata_sync.delivery.progress import Watch
from sdata_sync.models import Peer
from sdata_sync.registry import registry
started = time.perf_counter()
kinds = [registry.of_kind("accounts")]
passed = list(catch_up(Peer.objects.all(), kinds, directions=("pull", "push"), make_progress=lambda *_: Watch()))
result = time.perf_counter() - started
assert not any(item.error for item in passed), passed
"""

_EDIT = """
with transaction.atomic():
    for row in Account.objects.order_by("pk")[:100]:
        row.city += "!"
        row.save()
"""


def run(pairs: Iterator[tuple[Node, Node]]) -> None:
    """Print the figures; ``pairs`` yields fresh nodes, of which the first has the second as its peer."""
    print("\nCatch-up of rows that were there before the app, pulled by the node that has none")
    print("      rows    seconds   rows/s   raw bulk_create rows/s   peak MB engine   peak MB server")
    for size in SIZES:
        here, there = next(pairs)
        try:
            raw = there.run(_FILL.format(rows=size))
            there.end_driver()
            there.serve()
            seconds = here.run(_PASS)
            assert are_level(here, there)
            engine, server = peak_megabytes(here.driver_pid), peak_megabytes(there.worker_pid)
            print(f"{size:10} {seconds:10.2f} {size / seconds:8.0f} {size / raw:20.0f} {engine:18.0f} {server:16.0f}")
            if size == AMONG:
                _little_and_nothing(here, there)
        finally:
            here.close()
            there.close()


def _little_and_nothing(here: Node, there: Node) -> None:
    nothing = min(here.run(_PASS) for _ in range(5))
    there.run(_EDIT)
    there.end_driver()
    little = here.run(_PASS)
    assert are_level(here, there)
    print(f"{'':10} 100 changes among {AMONG} rows: {little:.3f} s; a pass with nothing to do: {nothing:.3f} s")


def peak_megabytes(pid: int) -> float:
    """Return the most memory that a process has had so far."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else float("nan")
