"""Lets it happen, and looks at the end whether anything was lost or doubled."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from testproject.databases import ServerDatabase, SQLiteFile, why_not
from testproject.nodes import Node, Processes, free_port, wait_until

from .ledger import SHARED, SNAPSHOT, allowed, faults_of
from .proxy import Proxy
from .services import Postgres, Redis, find_postgres, wait_for

WRITERS = 8
#: How long they may take to become level when nothing is broken any more.
LEVEL_SECONDS = 240


class Chaos:
    """Three nodes with a proxy before each, their workers, eight writers."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.dice = directory, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.skipped: list[str] = []
        self.is_verbose = False
        self.redis: Redis | None = None
        self.postgres: Postgres | None = None
        self._closing: list[Callable[[], None]] = []
        self.nodes: list[Node] = []
        self.proxies: list[Proxy] = []
        self.workers: list[Processes] = []
        self.writers: list[Processes] = []
        self.logs: list[Path] = []

    # Setting up.

    def build(self) -> None:
        """Make the nodes, level with each other."""
        for place, (name, database, delivery) in enumerate(self._plan()):
            public = free_port()
            node = Node(
                name, self.directory, priority=5 - place, database=database, public_port=public,
                environment={
                    "DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "SDATA_CHAOS": str(self.directory),
                    "SDATA_HEARTBEAT": "3", "SDATA_MAX_DELETION_PERCENT": "100", "SDATA_LOG_LEVEL": "WARNING", "SDATA_DELIVERY": delivery,
                    "SDATA_BROKER": self.redis.url if self.redis and delivery.endswith("CeleryDelivery") else "",
                },
            )  # fmt: skip
            node.create()
            self._closing.append(node.close)
            self.nodes.append(node)
            self.proxies.append(Proxy(public, node.port, seed=self.dice.randrange(2**32)))
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.add_peer(other)
        for node, proxy in zip(self.nodes, self.proxies, strict=True):
            proxy.open()
            node.serve()
            self._start_workers(node)
        self.nodes[0].run(f"for n in range({SHARED}): Account.objects.create(name=f'shared-{{n}}')")
        self.wait_level(seconds=120)

    def _plan(self) -> list[tuple[str, SQLiteFile | ServerDatabase, str]]:
        thread = "sdata_sync.delivery.backends.thread.ThreadDelivery"
        plan: list[tuple[str, SQLiteFile | ServerDatabase, str]] = [
            ("shop", SQLiteFile("shop", self.directory), thread)
        ]
        programs = find_postgres()
        if programs is None:
            self.skipped.append("PostgreSQL and its restarts: no initdb here")
        else:
            self.postgres = Postgres(programs, self.directory)
            self.postgres.start()
            self._closing.insert(0, self.postgres.crash)
        branch = ServerDatabase("branch", self.postgres.url) if self.postgres else SQLiteFile("branch", self.directory)
        if shutil.which("redis-server"):
            self.redis = Redis(self.directory)
            self.redis.start()
            wait_for(self.redis.port)
            self._closing.insert(0, self.redis.crash)
        else:
            self.skipped.append("Celery and its broker: no redis-server here")
        plan.append(("branch", branch, "sdata_sync.delivery.backends.celery.CeleryDelivery" if self.redis else thread))
        server = os.environ.get("SDATA_MARIADB", "mysql://root@127.0.0.1:3306")
        reason = why_not(server)
        if reason:
            self.skipped.append(f"MariaDB: {reason}")
        office = SQLiteFile("office", self.directory) if reason else ServerDatabase("office", server)
        plan.append(("office", office, "sdata_sync.delivery.backends.worker.WorkerDelivery"))
        return plan

    def _start_workers(self, node: Node) -> None:
        delivery = node.environment["SDATA_DELIVERY"]
        celery = ["-m", "celery", "-A", "testproject"]
        if delivery.endswith("CeleryDelivery"):
            workers = [*celery, "worker", "--concurrency", "2", "--loglevel", "WARNING"]
            self._employ(Processes(node, *workers, name="Celery's workers"))
            beat = [*celery, "beat", "--schedule", str(self.directory / "beat"), "--pidfile=", "--loglevel", "WARNING"]
            self._employ(Processes(node, *beat, name="Celery's beat"))
        elif delivery.endswith("WorkerDelivery"):
            self._employ(Processes(node, "manage.py", "sync_deliver", "--poll", "0.5", name="sync_deliver"))

    def _employ(self, processes: Processes) -> None:
        processes.start()
        self._closing.insert(0, processes.end)
        self.workers.append(processes)

    def start_writers(self) -> None:
        """Start the writers, spread over the nodes."""
        for number in range(WRITERS):
            self.writers.append(self._writer(number, generation=0))

    def _writer(self, number: int, generation: int) -> Processes:
        node = self.nodes[number % len(self.nodes)]
        name = f"w{number}g{generation}"
        log = self.directory / f"{name}.jsonl"
        log.touch()
        self.logs.append(log)
        command = ["-m", "tests.chaos.writer", name, str(log), str(self.directory / "stop")]
        writer = Processes(node, *command, str(self.dice.randrange(2**32)), name=name)
        writer.start()
        self._closing.insert(0, writer.end)
        return writer

    # What goes wrong.

    def rage(self, seconds: float) -> None:
        """Break things for so long."""
        for proxy in self.proxies:
            proxy.rate = 0.12
        acts = [
            *[self.refuse] * 3, *[self.be_silent] * 2, *[self.kill_worker] * 3, *[self.kill_server] * 2,
            *[self.kill_writer] * 2, *[self.fail_statements] * 4, self.crash_postgres, self.crash_broker,
        ]  # fmt: skip
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.dice.choice(acts)()
            self._replace_the_dead()
            time.sleep(self.dice.uniform(0.3, 1.5))
        for proxy in self.proxies:
            proxy.rate, proxy.is_silent = 0.0, False
        (self.directory / "errors").unlink(missing_ok=True)
        self._replace_the_dead()

    def _replace_the_dead(self) -> None:
        for node in self.nodes:
            if not node.is_serving:
                node.serve()
        for processes in self.workers:
            if processes.has_ended:
                processes.start()

    def refuse(self) -> None:
        """Let a node refuse connections for a moment."""
        proxy = self.dice.choice(self.proxies)
        proxy.close()
        time.sleep(self.dice.uniform(0.2, 1.5))
        proxy.open()
        self.counts["connections refused for a while"] += 1

    def be_silent(self) -> None:
        """Let a node hear nothing, and say what it likes."""
        proxy = self.dice.choice(self.proxies)
        proxy.is_silent = True
        time.sleep(self.dice.uniform(0.5, 2.0))
        proxy.is_silent = False

    def kill_worker(self) -> None:
        """Kill a worker where it stands."""
        worker = self.dice.choice(self.workers)
        worker.end(signal.SIGKILL)
        self.counts[f"{worker.name} killed"] += 1

    def kill_server(self) -> None:
        """Kill a node's server, with whatever it is applying and delivering."""
        node = self.dice.choice(self.nodes)
        node.kill()
        self.counts["server killed"] += 1
        node.serve()

    def kill_writer(self) -> None:
        """Kill a writer in the middle of a save; another takes its place."""
        number = self.dice.randrange(len(self.writers))
        self.writers[number].end(signal.SIGKILL)
        self.counts["writer killed"] += 1
        self.writers[number] = self._writer(number, generation=len(self.logs))

    def fail_statements(self) -> None:
        """Let statements fail at every node for a moment: the disk is full, a lock is not to be had."""
        (self.directory / "errors").write_text("0.03")
        time.sleep(self.dice.uniform(0.3, 1.0))
        (self.directory / "errors").unlink()

    def crash_postgres(self) -> None:
        """Restart the database as after a power cut."""
        if self.postgres is not None:
            self.postgres.crash()
            time.sleep(self.dice.uniform(0.2, 1.0))
            self.postgres.start()
            self.counts["database crashed and restarted"] += 1

    def crash_broker(self) -> None:
        """Stop the broker; it forgets every message."""
        if self.redis is not None:
            self.redis.crash()
            time.sleep(self.dice.uniform(0.2, 2.0))
            self.redis.start()
            wait_for(self.redis.port)
            self.counts["broker stopped and emptied"] += 1

    # The end.

    def stop_writers(self) -> None:
        """Let the writers finish what they are at."""
        (self.directory / "stop").touch()
        for writer in self.writers:
            wait_until(lambda: writer.has_ended, seconds=90, what=f"{writer.name} to stop")  # noqa: B023

    def snapshots(self) -> list[dict]:
        return [node.run(SNAPSHOT) for node in self.nodes]

    def wait_level(self, *, seconds: float) -> list[dict]:
        """Wait, doing nothing, until all nodes are alike; return what is there."""
        until = time.monotonic() + seconds
        while not self._are_level(seen := self.snapshots()):
            if time.monotonic() > until:
                raise AssertionError(_differences(self.nodes, seen))
            if self.is_verbose:
                for node, one in zip(self.nodes, seen, strict=True):
                    rows = f"{len(one['accounts'])} accounts, {len(one['orders'])} orders"
                    print(
                        f"{time.strftime('%X')} {node.name}: {rows}, {one['digests']}, {one['unnumbered']} unnumbered"
                    )
                    print("\n".join(one["streams"]), flush=True)
            time.sleep(1)
        return seen

    def _are_level(self, seen: list[dict]) -> bool:
        first = seen[0]
        return all(
            one["accounts"] == first["accounts"] and one["orders"] == first["orders"]
            and one["digests"] == first["digests"] and not one["unnumbered"] and not one["deferred"]
            for one in seen
        )  # fmt: skip

    def report(self) -> dict[str, int]:
        """Return how often what was done to them."""
        counts = self.counts + sum((proxy.counts for proxy in self.proxies), Counter())
        for file in self.directory.glob("errors-*"):
            counts.update(f"statement failed: {name}" for name in file.read_text().split("\n") if name)
        return dict(sorted(counts.items()))

    def close(self) -> None:
        """End everything."""
        for proxy in self.proxies:
            proxy.close()
        postgres = [close for close in self._closing if self.postgres and close == self.postgres.crash]
        for close in [close for close in self._closing if close not in postgres] + postgres:
            try:
                close()
            except Exception as error:
                print(f"closing: {error!r}")


def _differences(nodes: list[Node], seen: list[dict]) -> str:
    lines = ["The nodes are not in sync."]
    for node, one in zip(nodes, seen, strict=True):
        rows = {tuple(map(str, row)) for row in one["accounts"] + one["orders"]}
        others = [{tuple(map(str, row)) for row in other["accounts"] + other["orders"]} for other in seen]
        odd = sorted(rows - set.intersection(*others))[:10]
        lines.append(
            f"{node.name}: {json.dumps(one['digests'])}, {one['unnumbered']} unnumbered, deferred {one['deferred'][:5]}, odd {odd}"
        )
        lines.append(node.manage("sync_status", check=False).stdout)
    return "\n".join(lines)


def main() -> int:
    """Run it; exit status 0 only if everything is as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    parser.add_argument("--verbose", action="store_true", help="print how far they are while they become level")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="sdata-chaos-"))
    print(f"Chaos for {options.seconds:.0f} s, seed {options.seed}, in {directory}", flush=True)
    chaos = Chaos(directory, options.seed)
    chaos.is_verbose = options.verbose
    has_failed = True
    try:
        chaos.build()
        chaos.start_writers()
        chaos.rage(options.seconds)
        chaos.stop_writers()
        healed = time.monotonic()
        seen = chaos.wait_level(seconds=LEVEL_SECONDS)
        states = allowed(chaos.logs)
        wrong = faults_of(seen[0], states)
        print(f"Level {time.monotonic() - healed:.0f} s after the last fault")
        print(
            f"{len(states)} rows written, {len(seen[0]['accounts'])} accounts and {len(seen[0]['orders'])} orders there"
        )
        print("\n".join(wrong[:50]) if wrong else "Nothing lost, nothing doubled")
        has_failed = bool(wrong)
    finally:
        chaos.close()
        for name, count in chaos.report().items():
            print(f"  {count:6} {name}")
        for reason in chaos.skipped:
            print(f"  skipped: {reason}")
        if has_failed or options.keep:
            print(f"The logs are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return int(has_failed)
