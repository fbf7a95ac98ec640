"""Two real servers on two SQLite files, and what happens between them."""

import json
import os
import signal
import time

import pytest

from testproject.nodes import Node, Processes, are_level, wait_until

pytestmark = [pytest.mark.live]

#: A peer that is away is away for so many attempts; SDATA_OUTAGE_SECONDS says for how long at least.
FAILURES = 5


def make_pair(directory, *, priorities=(5, 5), environment=None) -> tuple[Node, Node]:
    nodes = tuple(
        Node(name, directory, priority=priority, environment=environment)
        for name, priority in zip(("shop", "branch"), priorities, strict=True)
    )
    for node in nodes:
        node.create()
    nodes[0].add_peer(nodes[1])
    nodes[1].add_peer(nodes[0])
    serve(*nodes)
    return nodes


def serve(*nodes):
    """Start the servers side by side."""
    for node in nodes:
        node.start_serving()
    for node in nodes:
        node.wait_for_server()


def wait_level(*nodes, seconds=180):
    try:
        wait_until(lambda: are_level(*nodes), seconds=seconds, what="both to be level")
    except TimeoutError as error:
        said = [
            f"{node.name}: {node.digest()}, {node.unnumbered()} unnumbered, {len(node.accounts())} rows, streams "
            f"{node.query('SELECT kind, known_digest, failures, last_error, holder, wanted FROM sdata_sync_stream')}\n"
            f"{node.complaints()}"
            for node in nodes
        ]
        raise AssertionError("\n".join([str(error), *said])) from error


def names(node) -> list[str]:
    return [row[0] for row in node.accounts()]


def no_losses(*nodes):
    """Nothing was deferred, and nothing is there twice."""
    for node in nodes:
        assert node.query("SELECT count(*) FROM sdata_sync_deferredentry") == [(0,)]


#: How often the processes of the lasting pair look for changes by themselves.
LOOK_SECONDS = 100


@pytest.fixture(scope="module")
def lasting_pair(tmp_path_factory):
    looks = {"SDATA_POLL_SECONDS": str(LOOK_SECONDS), "SDATA_HEARTBEAT": str(LOOK_SECONDS)}
    nodes = make_pair(tmp_path_factory.mktemp("pair"), environment=looks)
    yield nodes
    for node in nodes:
        node.close()


@pytest.mark.xdist_group("pair")
class TestLevel:
    @pytest.fixture
    def pair(self, lasting_pair):
        return lasting_pair

    def test_save_edit_delete(self, pair):
        shop, branch = pair
        shop.run("a = Account.objects.create(name='Saved', city='Rome', credit_limit='1.50', notes='<&>\\r\\n')")
        wait_until(lambda: "Saved" in names(branch), what="the account")
        shop.run("a.city = 'Turin'; a.save()")
        wait_until(lambda: any(row[3] == "Turin" for row in branch.accounts()), what="the edit")
        branch.run("b = Account.objects.get(name='Saved'); b.notes = 'seen'; b.save()")
        wait_until(lambda: any(row[7] == "seen" for row in shop.accounts()), what="the edit of the other side")
        shop.run("a.refresh_from_db(); a.delete()")
        wait_until(lambda: "Saved" not in names(branch), what="the deletion")
        wait_level(shop, branch)

    def test_what_is_rolled_back_never_was(self, pair):
        shop, branch = pair
        shop.run(
            "try:\n"
            "    with transaction.atomic():\n"
            "        Account.objects.create(name='Never')\n"
            "        raise KeyError\n"
            "except KeyError:\n"
            "    Account.objects.create(name='After the rollback')"
        )
        wait_until(lambda: "After the rollback" in names(branch), what="the account after it")
        wait_level(shop, branch)
        assert "Never" not in names(branch)

    def test_a_record_larger_than_the_peer_accepts_stops_no_other(self, pair):
        """With all defaults: bodies of 8 MiB are accepted."""
        shop, branch = pair
        shop.run("Account.objects.create(name='Large', notes='x' * 9_000_000)")
        shop.run("Account.objects.create(name='After the large one')")
        wait_until(lambda: "After the large one" in names(branch), seconds=120, what="the account after it")
        assert "Large" not in names(branch)
        status = wait_until(
            lambda: (
                (said := shop.manage("sync_status", check=False).stdout).count("larger than the peer accepts") and said
            ),
            seconds=120,
            what="the status to name it",
        )
        assert "accounts('" in status
        said = branch.manage("sync_catchup", "--pull", "--kind", "accounts", "--json", check=False)
        assert (said.returncode, "leaves out what is larger" in said.stdout) == (1, True)
        shop.run("a = Account.objects.get(name='Large'); a.notes = 'short'; a.save()")
        wait_until(lambda: "Large" in names(branch), seconds=120, what="its smaller version")
        wait_level(shop, branch)

    def test_500_saves_in_one_transaction(self, pair):
        shop, branch = pair
        shop.run("with transaction.atomic():\n    for n in range(500): Account.objects.create(name=f'Bulk {n}')")
        wait_until(lambda: sum(name.startswith("Bulk") for name in names(branch)) == 500, what="500 accounts")
        wait_level(shop, branch)
        posted = (branch.directory / "branch.log").read_text()
        assert "Traceback" not in posted
        no_losses(shop, branch)

    def test_both_sides_at_once(self, pair):
        shop, branch = pair
        shop.run("shared = [Account.objects.create(name=f'Shared {n}') for n in range(10)]")
        wait_level(shop, branch)
        edit = (
            "import threading, random\n"
            "def work(seed):\n"
            "    from django.db import connection\n"
            "    dice = random.Random(seed)\n"
            "    for n in range(60):\n"
            "        row = Account.objects.filter(name__startswith='Shared').order_by('name')[dice.randrange(10)]\n"
            "        row.notes = f'{seed} {n}'; row.save()\n"
            "        if n % 10 == 0: Account.objects.create(name=f'New {seed} {n}')\n"
            "    connection.close()\n"
            "workers = [threading.Thread(target=work, args=(SEED + str(i),)) for i in range(2)]\n"
            "for w in workers: w.start()\n"
        )
        shop.run(edit.replace("SEED", "'shop'"))
        branch.run(edit.replace("SEED", "'branch'"))
        for node in (shop, branch):
            node.run("for w in workers: w.join()")
        wait_level(shop, branch)
        assert sum(name.startswith("New") for name in names(shop)) == 24
        assert sum(name.startswith("Shared") for name in names(shop)) == 10

    def test_who_changed_it_travels(self, pair):
        shop, branch = pair
        shop.run("import sdata_sync\nwith sdata_sync.acting_as('night shift'): Account.objects.create(name='By night')")
        wait_level(shop, branch)
        assert ("night shift",) in branch.query('SELECT "user" FROM sdata_sync_trackedresource')

    def test_both_say_that_they_are_level(self, pair):
        for node in pair:  # whoever has nothing to send may not have spoken to its peer yet
            wait_until(
                lambda node=node: node.manage("sync_deliver", "--once", check=False).returncode == 0, what="arrival"
            )
        for node in pair:
            wait_until(lambda node=node: node.manage("sync_status", check=False).returncode == 0, what="level")
            assert "in sync" in node.manage("sync_status").stdout

    def test_a_command_delivers_before_it_ends(self, pair):
        shop, branch = pair
        shop.manage(
            "shell",
            "-c",
            "from testproject.crm.models import Account; Account.objects.create(name='Command')",
        )
        # Waits less than the other processes of the node do before they look by themselves.
        wait_until(lambda: "Command" in names(branch), seconds=LOOK_SECONDS / 2, what="what the command wrote")

    def test_a_child_process_delivers_for_itself(self, pair):
        shop, branch = pair
        # The fork comes while the parent's thread may be delivering, with a connection of its own.
        status = shop.run(
            "import os\n"
            "from django.db import connections\n"
            "from sdata_sync.delivery import get_backend\n"
            "result = []\n"
            "for n in range(10):\n"
            "    Account.objects.create(name=f'Parent {n}')\n"
            "    connections.close_all()\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        code = 2\n"
            "        try:\n"
            "            Account.objects.create(name=f'Forked {n}')\n"
            "            code = 0 if get_backend().drain(20) else 1\n"
            "        finally:\n"
            "            os._exit(code)\n"
            "    result.append(os.waitpid(child, 0)[1])"
        )
        assert status == [0] * 10
        # If the parent's thread was quicker to find the change, it is the one that delivers it.
        wait_until(lambda: sum(name.startswith("Forked") for name in names(branch)) == 10, what="the children's")
        wait_level(shop, branch)


@pytest.mark.xdist_group("killed")
class TestKilled:
    @pytest.fixture
    def pair(self, tmp_path):
        nodes = make_pair(tmp_path, priorities=(1, 2))
        yield nodes
        for node in nodes:
            node.close()

    def test_in_the_middle_of_a_page(self, pair):
        shop, branch = pair
        shop.run("with transaction.atomic():\n    for n in range(3000): Account.objects.create(name=f'Many {n}')")
        for wanted in (100, 900):
            wait_until(lambda wanted=wanted: len(branch.accounts()) > wanted, what="some of them")
            branch.kill()
            assert len(branch.accounts()) < 3000
            time.sleep(0.3)
            branch.serve()
        wait_level(shop, branch)
        assert sorted(names(branch)) == sorted(f"Many {n}" for n in range(3000))
        no_losses(shop, branch)

    def test_the_sender(self, pair):
        shop, branch = pair
        shop.run("with transaction.atomic():\n    for n in range(2000): Account.objects.create(name=f'Many {n}')")
        wait_until(lambda: len(branch.accounts()) > 100, what="some of them")
        shop.end_driver(kill=True)
        # Its server is still there, and so are the marks: the worker of another process finds them.
        assert shop.manage("sync_deliver", "--once", check=False).returncode in (0, 1)
        wait_level(shop, branch)
        assert len(names(branch)) == 2000


@pytest.mark.xdist_group("away")
def test_a_peer_that_was_away(tmp_path):
    """Unreachable until several attempts have failed, both sides editing the same rows; nobody does anything about it."""
    shop, branch = make_pair(tmp_path, environment={"DJANGO_SETTINGS_MODULE": "tests.acceptance.settings"})
    try:
        shop.run("rows = [Account.objects.create(name=f'Row {n}') for n in range(20)]")
        wait_level(shop, branch)
        branch.kill()
        ended = time.monotonic() + float(os.environ.get("SDATA_OUTAGE_SECONDS", "0"))
        for n in range(20):
            shop.run(f"rows[{n}].city = 'shop'; rows[{n}].save()")
        shop.run("rows[19].delete(); Account.objects.create(name='Meanwhile')")
        branch.manage(
            "shell",
            "-c",
            "from testproject.crm.models import Account\n"
            "from sdata_sync.delivery import get_backend\n"
            "from sdata_sync.models import Peer\n"
            "Peer.objects.update(enabled=False)\n"
            "for row in Account.objects.filter(name__in=['Row 1', 'Row 2']):\n"
            "    row.city = 'branch'; row.save()",
        )
        failures = "SELECT max(failures) FROM sdata_sync_stream"
        wait_until(lambda: shop.query(failures)[0][0] >= FAILURES, what="the attempts to fail")
        time.sleep(max(ended - time.monotonic(), 0))
        branch.manage("shell", "-c", "from sdata_sync.models import Peer; Peer.objects.update(enabled=True)")
        branch.serve()
        wait_level(shop, branch)
        cities = {row[0]: row[3] for row in shop.accounts()}
        assert "Row 19" not in cities
        assert "Meanwhile" in cities
        assert cities["Row 0"] == "shop"
        # Edited later at the branch, on top of what it knew: of two concurrent edits the later one stays.
        assert cities["Row 1"] == cities["Row 2"] == "branch"
        no_losses(shop, branch)
    finally:
        shop.close()
        branch.close()


@pytest.mark.xdist_group("line")
def test_a_line_of_three_with_a_relay(tmp_path):
    """a - b - c: what is saved at one end is at the other; b passes it on."""
    a, b, c = nodes = [Node(name, tmp_path) for name in "abc"]
    try:
        for node in nodes:
            node.create()
        a.add_peer(b)
        b.add_peer(a, "--relay")
        b.add_peer(c, "--relay")
        c.add_peer(b)
        serve(*nodes)
        a.run("x = Account.objects.create(name='From a')")
        c.run("z = Account.objects.create(name='From c')")
        wait_level(*nodes)
        assert names(b) == ["From a", "From c"]
        c.run("z = Account.objects.get(name='From a'); z.city = 'edited at c'; z.save()")
        a.run("x = Account.objects.get(name='From c'); x.delete()")
        wait_level(*nodes)
        assert [(row[0], row[3]) for row in a.accounts()] == [("From a", "edited at c")]
    finally:
        for node in nodes:
            node.close()


@pytest.mark.xdist_group("line")
class TestWorker:
    @pytest.fixture
    def pair(self, tmp_path):
        environment = {"SDATA_DELIVERY": "sdata_sync.delivery.backends.worker.WorkerDelivery"}
        shop, branch = [Node(name, tmp_path, environment=environment) for name in ("shop", "branch")]
        for node in (shop, branch):
            node.create()
        shop.add_peer(branch)
        branch.serve()
        yield shop, branch
        shop.close()
        branch.close()

    @pytest.fixture
    def worker(self, pair):
        # On PostgreSQL it is told; it need not look for a minute.
        pause = "60" if pair[0].database.vendor == "postgresql" else "0.1"
        worker = Processes(pair[0], "manage.py", "sync_deliver", "--poll", pause)
        yield worker
        worker.end()

    def test_it_delivers_for_processes_that_do_not(self, pair, worker):
        shop, branch = pair
        shop.run("Account.objects.create(name='Waiting')")
        assert branch.accounts() == []
        worker.start()
        wait_until(lambda: names(branch) == ["Waiting"], what="the worker")
        shop.run("Account.objects.create(name='Another')")
        wait_until(lambda: len(names(branch)) == 2, what="the worker")
        for number in range(20):
            shop.run(f"Account.objects.create(name='Number {number}')")
        wait_until(lambda: len(names(branch)) == 22, what="the worker")
        # It carries out what the peer asks for, as well.
        shop.serve()
        branch.add_peer(shop)
        pulled = branch.manage("sync_catchup", "--pull", "--json")
        assert not [passed["error"] for passed in json.loads(pulled.stdout) if passed["error"]]
        assert worker.end(signal.SIGTERM) == 0

    def test_told_to_stop_it_gives_back_what_it_holds(self, pair, worker):
        shop, branch = pair
        shop.run("Account.objects.bulk_create([Account(name=f'Old {n}') for n in range(8000)])")
        worker.start()
        wait_until(lambda: branch.query("SELECT 1 FROM crm_account LIMIT 1"), what="the first page")
        assert worker.end(signal.SIGTERM) == 0
        failed = "SELECT kind, holder, failures, last_error FROM sdata_sync_stream WHERE holder <> '' OR failures > 0"
        assert shop.query(failed) == []
        assert len(branch.accounts()) < 8000, "between two pages, not at the end"
        shop.manage("sync_deliver", "--once")
        assert len(branch.accounts()) == 8000
