"""``make test-databases`` and ``make test-all``: the tests on each server that answers, named on the command line.

With ``--all`` also what takes longer: real processes on databases of their own, task queues, and some random histories whose
nodes are databases of the server.
"""

import os
import subprocess
import sys

from testproject.databases import why_not

IN_PROCESS = ["tests/integration", "tests/hostile", "-k", "not histories"]
PROCESSES = ["tests/acceptance"]
HISTORIES = ["tests/integration/test_histories.py", "tests/integration/test_related_histories.py"]
#: Random histories of each kind: a commit on a server costs a hundred times one in memory.
SOME = "8"


def run(title: str, environment: dict[str, str], *arguments: str) -> int:
    """Run some tests; return the exit code."""
    print(f"== {title}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}).returncode


def main(arguments: list[str]) -> int:
    """Run the tests on each of the servers; return the worst of their exit codes."""
    is_all = "--all" in arguments
    codes = [0]
    if is_all:
        codes.append(run("task queues and many peers", {}, "-m", "slow", *PROCESSES))
    for server in arguments:
        if server == "--all":
            continue
        reason = why_not(server)
        if reason:
            print(f"== skipped: {server} ({reason.splitlines()[0]})", flush=True)
            continue
        database = {"SDATA_SERVER": server, "DATABASE_URL": f"{server}/sdata_sync_tests"}
        codes.append(run(f"in one process, on {server}", database, *IN_PROCESS))
        if is_all:
            nodes = {**database, "SDATA_NODES_ON": server, "SDATA_HISTORIES": SOME}
            codes.append(run(f"random histories, on {server}", nodes, *HISTORIES))
            codes.append(run(f"real processes, on {server}", database, *PROCESSES))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
