"""Several nodes in one process: the real code, each node with a database, a BASE_URL and a clock of its own.

They talk HTTP to each other through the client's in-process transport, on which faults can be laid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cached_property

import httpx2
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.utils.http import http_date

from .databases import empty, tables_of

_present: ContextVar[LocalNode | None] = ContextVar("node", default=None)


class NodeRouter:
    """Sends every query to the database of the node that is at work."""

    def db_for_read(self, model, **hints):
        node = _present.get()
        return None if node is None else node.alias

    db_for_write = db_for_read

    def allow_relation(self, *objects, **hints):
        return True


class Steps:
    """Base of a history: runs its steps, methods with the names of the steps, at one node each."""

    def __init__(self, wire, nodes):
        self.nodes = nodes
        self.faults = []
        wire.fault = lambda: self.faults.pop(0) if self.faults else ""

    def step(self, what, node, *rest):
        with self.nodes[node].at_work():
            getattr(self, what.replace(" ", "_"))(node, *rest)
        self.faults = []


class LocalNode:
    """A node; what is done ``with node.at_work():`` is done at it."""

    def __init__(self, number: int, *, priority: int = 5, skew_millis: int = 0) -> None:
        self.alias = f"node{number}"
        self.base_url = f"http://{self.alias}/sdata/myApp2/myContract/-"
        self.skew_millis = skew_millis
        self.settings = {
            "BASE_URL": self.base_url,
            "CONFLICT_PRIORITY": priority,
            "CREDENTIALS": {"peer": {"token": self.token}},
            "DELIVERY": "sdata_sync.delivery.backends.manual.ManualDelivery",
            "ASK_PEERS_FIRST": False,
            "MAX_DELETIONS": 10**6,
            "MAX_DELETION_PERCENT": 100,
            "PAGE_SIZE": 2,
            "MAX_PAGE_SIZE": 3,
        }

    @property
    def token(self) -> str:
        """What it logs in with, everywhere."""
        return f"secret of {self.alias}".replace(" ", "-")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        token = _present.set(self)
        try:
            yield
        finally:
            _present.reset(token)

    def reset(self, others: list[LocalNode]) -> None:
        """Empty the database, then let the others in and make them peers."""
        from django.contrib.auth.models import User
        from rest_framework.authtoken.models import Token

        from sdata_sync.models import Peer

        connection = connections[self.alias]
        filled = ("sdata_sync", "crm_", "shapes_", "auth_user", "auth_group", "authtoken")
        empty(connection, [table for table in tables_of(connection) if table.startswith(filled)])
        with self.at_work():
            for other in others:
                user = User.objects.create(username=other.alias, is_superuser=True)
                Token.objects.create(user=user, key=other.token)
                Peer.objects.create(
                    name=other.alias, url=other.base_url, credentials="peer", user=user, filters_us=True
                )


class Wire(httpx2.BaseTransport):
    """Carries requests to the nodes; ``fault`` is asked before each what is to happen to it."""

    def __init__(self, nodes: list[LocalNode]) -> None:
        from django.core.wsgi import get_wsgi_application

        self._nodes = {node.alias: node for node in nodes}
        self._inner = httpx2.WSGITransport(app=get_wsgi_application())
        self.fault: Callable[[], str] = lambda: ""
        self.crashes = 0
        #: Kinds that a node does not have: its name and the name of the kind.
        self.absent: set[tuple[str, str]] = set()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        fault = self.fault()
        if fault == "request lost":
            raise httpx2.ConnectError("lost", request=request)
        if fault == "died while applying":
            self.crashes += 1
        if (request.url.host, request.url.path.split("/")[5]) in self.absent:
            return httpx2.Response(404)
        with self._nodes[request.url.host].at_work():
            response = self._inner.handle_request(request)
            content = response.read()
            response.headers["Date"] = http_date(time.time() + self._nodes[request.url.host].skew_millis / 1000)
        self.crashes = 0
        if fault == "response lost":
            raise httpx2.ReadError("lost", request=request)
        if fault == "response cut off":
            content = content[: len(content) // 2]
        return httpx2.Response(response.status_code, headers=response.headers, content=content)


def _refuse(execute, sql, params, many, context):
    """Let transactions begin and end in the default database, and nothing else."""
    assert sql.split(" ", 1)[0] in ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK"), f"in the default database: {sql}"
    return execute(sql, params, many, context)


@contextmanager
def wired(nodes: list[LocalNode], monkeypatch) -> Iterator[Wire]:
    """Let the nodes work: settings and clock are of the one at work, clients use the wire.

    The nodes have databases of their own. Nothing of theirs is read or written in the default one: the tests on a server
    leave out those whose nodes are databases in memory.
    """
    from sdata_sync.conf import Setting, Settings, conf
    from sdata_sync.delivery import client
    from sdata_sync.delivery.threads import overlap
    from sdata_sync.sync.apply.applier import Applier
    from sdata_sync.sync.db import clock

    from .seams import carrying_out_at_once

    wire = Wire(nodes)
    usual_finish = Applier.finish

    class NodeSettings(Settings):
        """Reads the settings of the node that is at work, at each access."""

        @property
        def raw(self):
            node = _present.get()
            return super().raw if node is None else node.settings

    for name, declared in vars(Settings).items():
        if isinstance(declared, Setting):
            setattr(NodeSettings, name, property(lambda self, declared=declared: declared.read(self.raw)))
        elif isinstance(declared, cached_property):
            setattr(NodeSettings, name, property(declared.func))

    def finish(self, **options):
        if wire.crashes:
            raise OperationalError("died")
        return usual_finish(self, **options)

    def read_ns():
        node = _present.get()
        return time.time_ns() + (node.skew_millis if node else 0) * 1_000_000

    monkeypatch.setattr(conf, "__class__", NodeSettings)
    monkeypatch.setattr(client, "default_transport", wire)
    monkeypatch.setattr(Applier, "finish", finish)
    monkeypatch.setattr(clock, "read_ns", read_ns)
    # One thing at a time, in one thread: which node is at work is a matter of the thread.
    monkeypatch.setattr(overlap, "is_sequential", True)
    with carrying_out_at_once(), connections[DEFAULT_DB_ALIAS].execute_wrapper(_refuse):
        yield wire


@contextmanager
def two_nodes(monkeypatch, *shared) -> Iterator[list[LocalNode]]:
    """Let two nodes, each the other's peer, share models; ``shared`` are models, or models with their resources."""
    import sdata_sync

    nodes = [LocalNode(number) for number in range(2)]
    with wired(nodes, monkeypatch), ExitStack() as stack:
        for item in shared:
            stack.enter_context(sdata_sync.registered(*(item if isinstance(item, tuple) else (item,))))
        for node in nodes:
            node.reset([other for other in nodes if other is not node])
        yield nodes
