"""``make test-databases`` and ``make test-all``: the tests on each server that answers, named on the command line.

With ``--all`` also what takes longer: real processes on databases of their own, task queues, and some random histories whose
nodes are databases of the server. The parts run side by side, as they wait for their servers most of the time.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import combinations
from typing import IO

from testproject.databases import why_not

IN_PROCESS = ["tests/integration", "tests/hostile"]
PROCESSES = ["tests/acceptance"]
HISTORIES = [
    "tests/integration/test_histories.py",
    "tests/integration/test_related_histories.py",
    "tests/hostile/test_malice.py",
]
#: What must hold between nodes whose databases are on the server.
BETWEEN_NODES = [
    "tests/integration/test_columns.py",
    "tests/integration/test_keys.py",
    "tests/integration/test_field_values.py",
]
#: The values of all fields between nodes whose databases are of two makers; "memory" is SQLite.
FIELD_VALUES = ["tests/integration/test_field_values.py"]
#: The random histories have nodes of their own.
ELSEWHERE = "not histories and not malice"
#: Random histories of each kind: a commit on a server costs a hundred times one in memory.
SOME = "5"


@dataclass
class Part:
    """One run of pytest, in a process of its own; what it prints is kept until it has ended."""

    title: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start it."""
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.started = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", *self.arguments]
        environment = {**os.environ, **self.environment}
        self.process = subprocess.Popen(command, env=environment, stdout=self.output, stderr=subprocess.STDOUT)

    def report(self) -> int:
        """Print what it said, which includes every failure; return its exit code."""
        self.output.seek(0)
        print(f"== {self.title}, {time.monotonic() - self.started:.0f} s", flush=True)
        print(self.output.read().decode(errors="replace"), flush=True)
        return self.process.returncode


def run(parts: list[Part]) -> int:
    """Run the parts side by side, report each as it ends, and return the worst exit code."""
    running, codes = list(parts), [0]
    try:
        for part in parts:
            print(f"== begins: {part.title}", flush=True)
            part.start()
        while running:
            time.sleep(0.2)
            for part in [part for part in running if part.process.poll() is not None]:
                running.remove(part)
                codes.append(abs(part.report()))
    finally:
        for part in running:
            if hasattr(part, "process"):
                part.process.terminate()
    return max(codes)


def parts_on(server: str, *, is_all: bool) -> list[Part]:
    """Return what is to be run on a server."""
    database = {"SDATA_SERVER": server, "DATABASE_URL": f"{server}/sdata_sync_tests"}
    if not is_all:
        return [Part(f"in one process, on {server}", [*IN_PROCESS, "-k", ELSEWHERE], database)]
    nodes = {
        "SDATA_SERVER": server, "DATABASE_URL": f"{server}/sdata_sync_histories",
        "SDATA_NODES_ON": server, "SDATA_HISTORIES": SOME,
    }  # fmt: skip
    return [
        Part(
            f"in one process, and real processes, on {server}",
            [*IN_PROCESS, *PROCESSES, "-k", ELSEWHERE],
            database,
        ),
        Part(f"between nodes and random histories, on {server}", [*HISTORIES, *BETWEEN_NODES], nodes),
    ]


def part_between(one: str, other: str, number: int) -> Part:
    """Return what is to be run between nodes on two servers; one of them may be "memory", which is SQLite."""
    server = other if one == "memory" else one
    environment = {
        "SDATA_SERVER": server, "DATABASE_URL": f"{server}/sdata_sync_pair{number}",
        "SDATA_NODES_ON": f"{one},{other}", "SDATA_NODES_NAME": f"sdata_sync_pair{number}",
    }  # fmt: skip
    return Part(f"between {one} and {other}", FIELD_VALUES, environment)


def main(arguments: list[str]) -> int:
    """Run the tests on each of the servers; return the worst of their exit codes."""
    is_all = "--all" in arguments
    parts: list[Part] = []
    present = ["memory"]
    for server in arguments:
        if server == "--all":
            continue
        if reason := why_not(server):
            print(f"== skipped: {server} ({reason.splitlines()[0]})", flush=True)
            continue
        parts += parts_on(server, is_all=is_all)
        present.append(server)
    parts += [part_between(*pair, number) for number, pair in enumerate(combinations(present, 2))]
    if is_all:
        parts.append(Part("task queues and many peers", ["-m", "slow", *PROCESSES]))
    return run(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
