"""Deliveries in a task queue: real workers, real brokers, and what may happen to both."""

import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from testproject.nodes import Node, Processes, are_level, free_port, wait_until

from .test_two_nodes import names, no_losses, wait_level

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.xdist_group("queues")]

BROKERS = {
    "redis": os.environ.get("SDATA_REDIS", "redis://127.0.0.1:6379/5"),
    "rabbitmq": os.environ.get("SDATA_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//"),
}


def answers(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def celery(node, *options):
    return Processes(
        node, "-m", "celery", "-A", "testproject", "worker", "--beat", "--schedule", str(node.directory / "beat"),
        "--concurrency", "2", "--loglevel", "INFO", *options,
    )  # fmt: skip


@pytest.fixture
def make(tmp_path):
    made = []

    def make(environment):
        shop = Node("shop", tmp_path, environment={"SDATA_HEARTBEAT": "2", **environment})
        branch = Node("branch", tmp_path)
        made.extend([shop, branch])
        for node in (shop, branch):
            node.create()
        shop.add_peer(branch)
        branch.add_peer(shop)
        branch.serve()
        return shop, branch

    yield make
    for node in made:
        node.close()


@pytest.mark.parametrize("name", BROKERS)
def test_celery(name, make):
    broker = BROKERS[name]
    if not answers(broker):
        pytest.skip(f"No broker at {broker}")
    shop, branch = make({
        "SDATA_DELIVERY": "sdata_sync.delivery.backends.celery.CeleryDelivery",
        "SDATA_BROKER": broker,
        "SDATA_QUEUE": f"sdata-{uuid4().hex[:8]}",
    })  # fmt: skip
    workers = celery(shop)
    try:
        # What is saved while nobody works, and what is saved while somebody does.
        shop.run("for n in range(20): Account.objects.create(name=f'Early {n}')")
        workers.start()
        wait_until(lambda: len(names(branch)) == 20, what="what was saved before there was a worker")
        shop.run("a = Account.objects.create(name='Saved'); a.city = 'Rome'; a.save()")
        wait_level(shop, branch)

        log = (shop.directory / "shop-workers.log").read_text()
        assert "Task sdata_sync.deliver[" in log, "told of it, not found by the heartbeat"

        # Workers killed while they deliver: nothing is lost, and nothing is there twice.
        shop.run("for n in range(50): Account.objects.create(name=f'Then {n}')")
        workers.end(signal.SIGKILL)
        shop.run("for n in range(50): Account.objects.create(name=f'Later {n}')")
        workers.start()
        wait_level(shop, branch)
        assert len(names(branch)) == 121

        # The peer is away for a while; whoever fails comes back to it.
        branch.kill()
        shop.run("a.city = 'Turin'; a.save()")
        failures = "SELECT max(failures) FROM sdata_sync_stream"
        wait_until(lambda: shop.query(failures)[0][0], what="a failure to be noted")
        branch.serve()
        wait_level(shop, branch)

        # An asynchronous call of the peer is carried out by a worker.
        shop.serve()
        branch.manage("sync_catchup", "--pull")
        holders = [holder for (holder,) in shop.query("SELECT holder FROM sdata_sync_operation WHERE phase = 'done'")]
        for holder in holders:
            assert int(holder.split("/")[1]) != shop.worker_pid
        no_losses(shop, branch)
        workers.end(signal.SIGTERM)
    finally:
        workers.end()
        subprocess.run(
            [sys.executable, "-m", "celery", "-A", "testproject", "purge", "-f"],
            env=shop.environment, capture_output=True,
        )  # fmt: skip


def test_a_broker_that_is_away_costs_time_and_no_data(make):
    shop, branch = make({
        "SDATA_DELIVERY": "sdata_sync.delivery.backends.celery.CeleryDelivery",
        "SDATA_BROKER": f"redis://127.0.0.1:{free_port()}/0",
    })  # fmt: skip
    shop.run("for n in range(50): Account.objects.create(name=f'Saved {n}')")
    log = shop.directory / "shop-driver.log"
    wait_until(lambda: "cannot be sent" in log.read_text(), what="it to be said")
    assert log.read_text().count("cannot be sent") == 1, "said once, not for every save"
    assert names(branch) == []
    shop.manage("sync_deliver", "--once")
    assert are_level(shop, branch)


def test_djangos_own_tasks(make):
    shop, branch = make(
        {"SDATA_DELIVERY": "sdata_sync.delivery.backends.django_tasks.TaskDelivery", "SDATA_TASKS": "1"}
    )
    workers = Processes(shop, "manage.py", "db_worker", "--interval", "0.05", "--no-startup-delay")
    try:
        shop.run("for n in range(20): Account.objects.create(name=f'Early {n}')")
        workers.start()
        wait_level(shop, branch)
        shop.run("a = Account.objects.create(name='Saved'); a.city = 'Rome'; a.save()")
        wait_level(shop, branch)
        branch.kill()
        shop.run("a.city = 'Turin'; a.save()")
        wait_until(lambda: shop.query("SELECT max(failures) FROM sdata_sync_stream")[0][0], what="a failure")
        branch.serve()
        wait_level(shop, branch)
        no_losses(shop, branch)
    finally:
        workers.end()
