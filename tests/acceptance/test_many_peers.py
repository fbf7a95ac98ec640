"""A hundred peers, half of them away: those that are there do not wait for the others."""

import os
import socket
from pathlib import Path

import pytest

from testproject.nodes import Node, free_port, wait_until

from ..chaos.proxy import Proxy
from .test_two_nodes import names

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.xdist_group("many peers")]

LIVING, REFUSING, SILENT = 50, 25, 25
PEERS = """
from sdata_sync.models import Peer
for number, port in enumerate({ports}):
    url = f"http://127.0.0.1:{{port}}/sdata/branch/myContract/-"
    Peer.objects.create(name=f"{kind} {{number}}", url=url, credentials="peer")
"""
LEVEL = "SELECT count(*) FROM sdata_sync_stream s JOIN sdata_sync_peer p ON p.id = s.peer_id WHERE {condition}"


def test_half_of_them_away(tmp_path):
    hurried = {
        "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
        "SDATA_CHAOS": str(tmp_path),
        "SDATA_HEARTBEAT": "3600",
    }
    shop, branch = Node("shop", tmp_path, environment=hurried), Node("branch", tmp_path)
    # One real peer under fifty names; ports that nobody has; and sockets that take what comes and never answer.
    proxies = [Proxy(0, branch.port, seed=number) for number in range(LIVING)]
    silent = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(SILENT)]
    try:
        for node in (shop, branch):
            node.create()
        branch.serve()
        for proxy in proxies:
            proxy.open()
        shop.run("result = Account.objects.create(name='One').pk")
        groups = {
            "living": [proxy.port for proxy in proxies],
            "refusing": [free_port() for _ in range(REFUSING)],
            "silent": [server.getsockname()[1] for server in silent],
        }
        for kind, ports in groups.items():
            shop.run(PEERS.format(kind=kind, ports=ports))
        shop.run("import time; time.sleep(1.1); two = Account.objects.create(name='Two')")

        def count(condition):
            return shop.query(LEVEL.format(condition=condition))[0][0]

        delivered = "p.name LIKE 'living%' AND s.kind = 'accounts' AND s.known_digest LIKE '%: {tick}%'"
        wait_until(lambda: count(delivered.format(tick=3)) == LIVING, seconds=300, what="the living to be level")
        assert sorted(names(branch)) == ["One", "Two"]
        wait_until(lambda: count("s.failures > 0 AND p.name LIKE 'silent%'"), what="failures")

        for number in range(5):
            tick = 4 + number
            shop.run(f"two.city = 'City {number}'; two.save()")
            # They have to be done with within the time-out of one of those that are silent.
            wait_until(lambda: count(delivered.format(tick=tick)) == LIVING, seconds=60, what=f"tick {tick}")  # noqa: B023
        assert count("p.name LIKE 'living%' AND s.failures > 0") == 0
        # No more connections with the database than there are places, however many peers.
        assert connections(shop) <= 16 + 4
    finally:
        for server in silent:
            server.close()
        for node in (shop, branch):
            node.close()
        for proxy in proxies:
            proxy.close()


def connections(node) -> int:
    if node.database.vendor == "sqlite":
        files = [os.readlink(file) for file in Path(f"/proc/{node.driver_pid}/fd").iterdir()]
        return files.count(str(node.database.path))
    if node.database.vendor == "postgresql":
        return node.query("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")[0][0]
    return node.query("SELECT count(*) FROM information_schema.processlist WHERE db = database()")[0][0]
