"""Nodes of the test project as real processes, for the demo, the acceptance tests and the benchmarks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from .databases import ServerDatabase, SQLiteFile, database_for

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "token-of-nodes-that-live-for-a-demo"
PASSWORD = "admin"

# Runs in a process that is set up as the node: what a second worker, a command or a shell would do there.
_DRIVER = """
import json, sys, traceback
import django
django.setup()
from django.db import connection, transaction
from testproject.crm.models import Account, Contact, SalesOrder, SalesOrderLine
namespace = dict(
    Account=Account, Contact=Contact, SalesOrder=SalesOrder, SalesOrderLine=SalesOrderLine,
    transaction=transaction, connection=connection,
)
for line in sys.stdin:
    namespace["result"] = None
    try:
        exec(json.loads(line), namespace)
        answer = {"result": namespace["result"]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer, default=str), flush=True)
"""


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    condition: Callable[[], Any], *, seconds: float = 120, what: str = "it to happen", pause: float = 0.02
) -> Any:
    """Return the first truthy value of ``condition``, which is asked every ``pause`` seconds.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {seconds} s for {what}")
        time.sleep(pause)
    return value


#: For ``wait_until``: so often that what is measured is not the pause.
AT_ONCE = 0.0003


class Node:
    """One application: a database, a server process, and processes beside it."""

    #: A node that was created and does not run. Others are created by copying its database, where one is set.
    template: ClassVar[Node | None] = None

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        priority: int = 5,
        environment: dict[str, str] | None = None,
        database: SQLiteFile | ServerDatabase | None = None,
        public_port: int | None = None,
    ):
        self.name = name
        self.port = free_port()
        self.directory = directory
        self.database = database or database_for(name, directory)
        # Others may reach it through something that stands before it.
        self.base_url = f"http://127.0.0.1:{public_port or self.port}/sdata/{name}/myContract/-"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "testproject.settings",
            "SDATA_BASE_URL": self.base_url,
            "DATABASE_URL": self.database.url,
            "SDATA_CONFLICT_PRIORITY": str(priority),
            "SDATA_CREDENTIALS": json.dumps({"peer": {"token": TOKEN}}),
            "SDATA_DELIVERY": "sdata_sync.delivery.backends.thread.ThreadDelivery",
            "SDATA_LOG_LEVEL": "INFO",
            "DJANGO_DEBUG": "0",
            "PYTHONPATH": str(ROOT),
            **(environment or {}),
        }
        # A process of a node takes half as long to start where the one before it has left its bytecode.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._server: subprocess.Popen[bytes] | None = None
        self._driver: subprocess.Popen[str] | None = None

    def create(self) -> None:
        """Make the database, with an administrator who is also the account that peers log in with."""
        # Task queues have tables of their own.
        if self.template is not None and not self.environment.get("SDATA_TASKS"):
            self.database.create(self.template.database)  # type: ignore[arg-type]
            return
        self.database.create()
        self.manage("migrate", "-v0")
        self.run(
            "from django.contrib.auth.models import User\n"
            "from rest_framework.authtoken.models import Token\n"
            f"user = User.objects.create_superuser('admin', password={PASSWORD!r})\n"
            f"Token.objects.create(user=user, key={TOKEN!r})"
        )

    def add_peer(self, other: Node, *options: str) -> None:
        """Make ``other`` a peer."""
        arguments = (
            "sync_peer",
            "add",
            other.base_url,
            "--name",
            other.name,
            "--credentials",
            "peer",
            "--offline",
            *options,
        )
        self.run(
            "import io\n"
            "from django.core.management import call_command\n"
            f"call_command(*{arguments!r}, stdout=io.StringIO())"
        )

    def manage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a management command at this node."""
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(command, env=self.environment, text=True, capture_output=True)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} at {self.name} failed:\n{done.stdout}{done.stderr}")
        return done

    def serve(self) -> None:
        """Start the server and wait until it answers."""
        self.start_serving()
        self.wait_for_server()

    def start_serving(self) -> None:
        """Start the server."""
        log = (self.directory / f"{self.name}.log").open("ab")
        command = [sys.executable, "-m", "gunicorn", "testproject.wsgi", "--bind", f"127.0.0.1:{self.port}"]
        command += ["--workers", "1", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "60"]
        self._server = subprocess.Popen(
            command, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )

    def wait_for_server(self) -> None:
        """Wait until the server answers."""
        wait_until(self._answers, what=f"{self.name} to serve; see {self.directory / self.name}.log")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def driver_pid(self) -> int:
        """The process that ``run`` uses."""
        assert self._driver is not None
        return self._driver.pid

    @property
    def worker_pid(self) -> int:
        """The process that answers requests: the one child of the server."""
        assert self._server is not None
        pid = self._server.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    @property
    def is_serving(self) -> bool:
        """Whether the server process runs."""
        return self._server is not None and self._server.poll() is None

    def stop(self) -> None:
        """Stop the server as an administrator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server and its workers where they stand."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._server is not None and self._server.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(self._server.pid, number)
            else:
                self._server.send_signal(number)
            self._server.wait(120)
        self._server = None

    def run(self, code: str) -> Any:
        """Execute ``code`` in a process of this node that stays, and return what it leaves in ``result``."""
        if self._driver is None:
            log = (self.directory / f"{self.name}-driver.log").open("ab")
            self._driver = subprocess.Popen(
                [sys.executable, "-c", _DRIVER],
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps(code) + "\n")
        self._driver.stdin.flush()
        answer = json.loads(self._driver.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"At {self.name}:\n{answer['error']}")
        return answer["result"]

    def end_driver(self, *, kill: bool = False) -> None:
        """End the process that ``run`` uses; it delivers what it can first, unless it is killed."""
        if self._driver is not None:
            if kill:
                self._driver.kill()
            assert self._driver.stdin is not None
            self._driver.stdin.close()
            self._driver.wait(120)
            self._driver = None

    def close(self) -> None:
        """End every process, and drop the database."""
        self.end_driver(kill=True)
        self.kill()
        self.database.drop()

    def complaints(self, lines: int = 40) -> str:
        """Return the last of what its processes have said of errors, each with the lines that follow."""
        said: list[str] = []
        for log in sorted(self.directory.glob(f"{self.name}*.log")):
            text = log.read_text(errors="replace").splitlines()
            at = [n for n, line in enumerate(text) if " ERROR " in line or " WARNING " in line or "Traceback" in line]
            said += [f"{log.name}: {line}" for line in (text[at[0] :] if at else [])[-lines:]]
        return "\n".join(said)

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Read the database from outside, past all of the code."""
        return self.database.query(sql, *parameters)

    def accounts(self) -> list[tuple[Any, ...]]:
        """Return the accounts as a user of this node sees them, without their local keys."""
        columns = "name, email, phone, city, country, credit_limit, is_active, notes"
        return self.query(f"SELECT {columns} FROM crm_account ORDER BY {columns}")

    def related(self) -> list[tuple[Any, ...]]:
        """Return how the contacts, orders and lines hang together, without any local key."""
        contacts = self.query(
            "SELECT c.last_name, c.first_name, c.email, a.name, a.main_contact_id = c.id FROM crm_contact c "
            "JOIN crm_account a ON a.id = c.account_id ORDER BY 1, 2, 3, 4"
        )
        orders = self.query(
            "SELECT o.order_number, o.order_date, o.ship_date, o.sub_total, a.name, c.last_name, l.line_number, "
            "l.description, l.order_qty, l.unit_price FROM crm_salesorder o JOIN crm_account a ON a.id = o.account_id "
            "LEFT JOIN crm_contact c ON c.id = o.contact_id LEFT JOIN crm_salesorderline l ON l.order_id = o.id "
            "ORDER BY 1, 7, 8"
        )
        return contacts + orders

    def digest(self) -> dict[str, int]:
        """Return the ticks of the digests of all kinds by endpoint; one that never recorded a change is not named."""
        return dict(
            self.query(
                "SELECT lower(e.url), d.tick FROM sdata_sync_digestentry d "
                "JOIN sdata_sync_endpoint e ON e.id = d.endpoint_id WHERE d.tick > 1"
            )
        )

    def unnumbered(self) -> int:
        """Return how many changes have no tick yet."""
        return int(self.query("SELECT count(*) FROM sdata_sync_trackedresource WHERE mark IS NOT NULL")[0][0])


class Processes:
    """What runs beside a node's server: a worker with its children, a writer. ``command`` is what Python is given."""

    def __init__(self, node: Node, *command: str, name: str = "workers") -> None:
        self.name, self._node, self._command = name, node, command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a process group of its own; what it says goes into a log beside the server's."""
        with (self._node.directory / f"{self._node.name}-{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._command],
                env=self._node.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, number: int = signal.SIGKILL, *, seconds: float = 120) -> int | None:
        """Kill all of it, or tell its first process to stop; return the exit status, ``None`` if it had ended."""
        if self._process is None or self._process.poll() is not None:
            return None
        if number == signal.SIGKILL:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return self._process.wait(seconds)

    @property
    def has_ended(self) -> bool:
        """Whether it was started, and does not run any more."""
        return self._process is not None and self._process.poll() is not None


def are_level(*nodes: Node) -> bool:
    """Tell whether the nodes have equal data and equal digests, and nothing waits."""
    first = nodes[0]
    return all(not node.unnumbered() for node in nodes) and all(
        node.accounts() == first.accounts() and node.related() == first.related() and node.digest() == first.digest()
        for node in nodes[1:]
    )
