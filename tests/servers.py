"""``make test-databases`` and ``make test-all``: the tests on each server that answers, named on the command line.

With ``--acceptance`` also those of real processes on databases of their own.

The state machines stay on SQLite: their three nodes are databases in memory.
"""

import os
import subprocess
import sys

from testproject.databases import why_not


def main(arguments: list[str]) -> int:
    """Run the tests on each of the servers; return the worst of their exit codes."""
    servers = [argument for argument in arguments if argument != "--acceptance"]
    folders = ["tests/integration", "tests/hostile", *(["tests/acceptance"] if "--acceptance" in arguments else [])]
    worst = 0
    for server in servers:
        reason = why_not(server)
        if reason:
            print(f"== skipped: {server} ({reason.splitlines()[0]})", flush=True)
            continue
        print(f"== the tests on {server}", flush=True)
        environment = {**os.environ, "SDATA_SERVER": server, "DATABASE_URL": f"{server}/sdata_sync_tests"}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-k", "not histories"]
        done = subprocess.run([*command, *folders], env=environment)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
