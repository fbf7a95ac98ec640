"""``make bench``: the cost of a save, the latency to a peer, the changes applied per second.

Prints each figure with that of raw Django, measured in the same run, beside it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import catch_up
from testproject.databases import why_not
from testproject.nodes import ROOT, Node, are_level, wait_until

LATENCY_SAVES = 500
CHANGES = 20_000

_MANY = """
import time
from benchmarks.values import account
with transaction.atomic():
    for number in range({changes}):
        account(number).save()
"""

_DELIVER = """
import time
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import Peer
from sdata_sync.registry import registry
with PeerSession(Peer.objects.get()) as session:
    started = time.perf_counter()
    assert session.deliver([registry.of_kind("accounts")], impatient=True) is None
    result = time.perf_counter() - started
"""

_RAW_BULK = """
import time
from benchmarks.values import account
rows = [account(number) for number in range({changes})]
from django.db.models import QuerySet
started = time.perf_counter()
for start in range(0, len(rows), 100):
    QuerySet(Account).bulk_create(rows[start:start + 100])
result = time.perf_counter() - started
"""


def save_cost(directory: Path) -> None:
    """Print the cost of a save."""
    print("Cost of save()                    plain Django   registered    ratio")
    for name, figure in _figures_of("save_cost", directory).items():
        print(f"  {name:30} {figure['plain_us']:9.1f} us {figure['registered_us']:9.1f} us {figure['ratio']:8.2f}")


def writers(directory: Path) -> None:
    """Print the saves per second of several writers at once, and how near that is to what one pays."""
    print("\nSaves per second in autocommit   plain Django   registered    share   of one writer's share")
    figures = _figures_of("writers", directory)
    for count, figure in figures.items():
        relative = figure["share"] / figures["1"]["share"]
        print(
            f"  {count:>2} connections {figure['plain']:28.0f} {figure['registered']:12.0f} {figure['share']:8.2f} "
            f"{relative:10.0%}"
        )


def selecting(directory: Path) -> None:
    """Print what 100 changes cost among few and among very many tracked rows."""
    figures = _figures_of("selecting", directory)
    few = next(iter(figures.values()))
    print("\n100 changes among tracked rows      numbered                selected")
    for size, figure in figures.items():
        columns = (f"{figure[what]:9.1f} ms {figure[what] / few[what]:7.2f} times" for what in ("number", "select"))
        print(f"  {int(size):>9} rows {'':14}", *columns)


def _figures_of(module: str, directory: Path) -> dict[str, dict[str, float]]:
    """Return what a benchmark prints that runs in a process of one node."""
    environment = {"SDATA_LOG_LEVEL": "ERROR", "SDATA_DELIVERY": "sdata_sync.delivery.backends.manual.ManualDelivery"}
    node = Node(f"solo{time.monotonic_ns()}", directory, environment=environment)
    node.create()
    node.end_driver()
    try:
        command = [sys.executable, "-m", f"benchmarks.{module}"]
        done = subprocess.run(command, env=node.environment, cwd=ROOT, text=True, capture_output=True)
    finally:
        node.close()
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: dict[str, dict[str, float]] = json.loads(done.stdout)
    return figures


def latency(directory: Path) -> None:
    """Print the time from ``save()`` returning to the row being visible at the peer."""
    here, there = _pair(directory)
    there.serve()
    try:
        here.run("import time\nfrom benchmarks.latency import run, run_raw")
        figures = {
            "to the peer": here.run(f"result = run({there.database.url!r}, {LATENCY_SAVES})"),
            "raw: to another connection": here.run(f"result = run_raw({here.database.url!r}, {LATENCY_SAVES})"),
        }
    finally:
        here.close()
        there.close()
    print(f"\nLatency of {LATENCY_SAVES} saves, until visible          p50          p99")
    for name, millis in figures.items():
        cuts = statistics.quantiles(millis, n=100)
        print(f"  {name:36} {cuts[49]:9.2f} ms {cuts[98]:9.2f} ms")


def throughput(directory: Path) -> None:
    """Print how many changes are applied per second over one connection, from mark to level."""
    here, there = _pair(directory)
    here.environment["SDATA_DELIVERY"] = "sdata_sync.delivery.backends.manual.ManualDelivery"
    there.serve()
    try:
        here.run(_MANY.format(changes=CHANGES))
        seconds = here.run(_DELIVER)
        wait_until(lambda: are_level(here, there), what="both to be level")
        updates = here.run(_MANY_EDITED + _DELIVER)
        wait_until(lambda: are_level(here, there), what="both to be level")
        raw = there.run(_RAW_BULK.format(changes=CHANGES))
    finally:
        here.close()
        there.close()
    print(f"\nChanges applied per second, {CHANGES} over one connection, numbered, sent, applied, answered")
    print(f"  created                              {CHANGES / seconds:9.0f} /s")
    print(f"  updated                              {CHANGES / updates:9.0f} /s")
    print(f"  raw: bulk_create, 100 at a time      {CHANGES / raw:9.0f} /s")


_MANY_EDITED = """
with transaction.atomic():
    for row in Account.objects.all():
        row.city = row.city + "!"
        row.save()
"""


def catch_up_cost(directory: Path) -> None:
    """Print rows per second from nothing to level, and what little and nothing cost."""

    def pairs() -> Iterator[tuple[Node, Node]]:
        while True:
            here, there = _pair(directory)
            for node in (here, there):
                node.environment["SDATA_DELIVERY"] = "sdata_sync.delivery.backends.manual.ManualDelivery"
            yield here, there

    catch_up.run(pairs())


def _pair(directory: Path) -> tuple[Node, Node]:
    folder = directory / f"pair{time.monotonic_ns()}"
    folder.mkdir()
    nodes = [Node(name, folder, environment={"SDATA_LOG_LEVEL": "WARNING"}) for name in ("here", "there")]
    for node in nodes:
        node.create()
        node.end_driver()
    nodes[0].add_peer(nodes[1])
    nodes[0].end_driver()
    return nodes[0], nodes[1]


def main() -> None:
    """Run what is named on the command line, or everything: on SQLite, and on the server of SDATA_BENCH_SERVER."""
    benchmarks = {
        "save": save_cost,
        "writers": writers,
        "selecting": selecting,
        "latency": latency,
        "throughput": throughput,
        "catchup": catch_up_cost,
    }
    chosen = sys.argv[1:] or list(benchmarks)
    server = os.environ.get("SDATA_BENCH_SERVER", "")
    reason = why_not(server) if server else ""
    if reason:
        print(f"Not on {server}: {reason}")
    for database in ["", *([server] if server and not reason else [])]:
        print(f"\n== {urlsplit(database).scheme or 'sqlite'}\n")
        os.environ["SDATA_SERVER"] = database
        with tempfile.TemporaryDirectory() as directory:
            for name in chosen:
                benchmarks[name](Path(directory))


if __name__ == "__main__":
    main()
