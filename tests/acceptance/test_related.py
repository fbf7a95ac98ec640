"""Real data models between real servers: orders with their lines, circles, and two databases that become one."""

import csv
import json

import pytest

from testproject.nodes import AT_ONCE, Node, are_level, wait_until

from .test_catch_up import QUIET, caught_up, make_nodes
from .test_two_nodes import make_pair, serve, wait_level

pytestmark = [pytest.mark.live]

ORDER = (
    "with transaction.atomic():\n"
    "    account = Account.objects.create(name='ACME')\n"
    "    contact = Contact.objects.create(account=account, last_name='Doe')\n"
    "    order = SalesOrder.objects.create(account=account, contact=contact, order_number='{number}', "
    "order_date='2026-01-01')\n"
    "    for n in range(3): order.lines.create(line_number=n, description=f'Line {{n}}')\n"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    nodes = make_pair(tmp_path_factory.mktemp("orders"))
    yield nodes
    for node in nodes:
        node.close()


@pytest.mark.xdist_group("related")
class TestOrders:
    def test_an_order_arrives_in_one_piece(self, pair):
        here, there = pair
        here.run(ORDER.format(number="1"))
        seen = set()

        def has_arrived():
            seen.update(there.query(
                "SELECT count(l.id), count(c.id) FROM crm_salesorder o LEFT JOIN crm_salesorderline l ON l.order_id = o.id "
                "LEFT JOIN crm_contact c ON c.id = o.contact_id WHERE o.order_number = '1' GROUP BY o.id"
            ))  # fmt: skip
            return seen

        wait_until(has_arrived, what="the order", pause=AT_ONCE)
        wait_level(here, there)
        has_arrived()
        assert seen == {(3, 3)}, "never without a line, never without its contact"

    def test_one_line_edited_there_and_another_deleted_here(self, pair):
        here, there = pair
        here.run(ORDER.format(number="2"))
        wait_level(here, there)
        there.run("line = SalesOrderLine.objects.get(order__order_number='2', line_number=1)")
        here.run("line = SalesOrderLine.objects.get(order__order_number='2', line_number=2)")
        there.run("line.order_qty = 7; line.save()")
        here.run("line.delete()")
        wait_level(here, there)
        assert here.related() == there.related()

    def test_a_circle_in_one_go(self, pair):
        here, there = pair
        here.run(
            "with transaction.atomic():\n"
            "    account = Account.objects.create(name='Circle')\n"
            "    account.main_contact = Contact.objects.create(account=account, last_name='Main')\n"
            "    account.save()\n"
        )
        wait_level(here, there)
        query = "SELECT c.last_name FROM crm_account a JOIN crm_contact c ON c.id = a.main_contact_id WHERE a.name = 'Circle'"
        assert there.query(query) == [("Main",)]


@pytest.mark.xdist_group("linking")
def test_two_databases_become_one(tmp_path):
    """5,000 rows each, 4,000 in common by e-mail, 200 pairs that could be the same and need not."""
    here, there = [Node(name, tmp_path, environment=QUIET) for name in ("here", "there")]
    try:
        for node in (here, there):
            node.create()
        here.manage(
            "sync_peer", "add", there.base_url, "--name", "there", "--credentials", "peer", "--disabled", "--offline"
        )
        fill = (
            "names = [(f'Common {{n}}', f'{email}{{n}}@example.com') for n in range(4000)]\n"
            "names += [(f'{node} {{n}}', f'{node}{{n}}@example.com') for n in range({own})]\n"
            "names += [(f'{node} twin {{n}}', f'twin{{n // {twins}}}@example.com') for n in range({shared})]\n"
            "Account.objects.bulk_create([Account(name=name, email=mail, city='{node}') for name, mail in names[::{step}]])"
        )
        here.run(fill.format(node="here", email="Common", own=800, twins=2, shared=200, step=1))
        there.run(fill.format(node="there", email="common", own=900, twins=1, shared=100, step=-1))
        for node in (here, there):
            assert node.query("SELECT count(*) FROM crm_account") == [(5000,)]
            node.end_driver()
        there.serve()
        table = tmp_path / "pairs.csv"
        link = ["sync_link", "--peer", "there", "--kind", "accounts"]
        found = json.loads(here.manage(*link, "--csv", str(table), "--json").stdout)
        assert (found["certain"], found["likely"], found["ambiguous"]) == (0, 4000, 200)
        with table.open() as file:
            rows = list(csv.DictReader(file))
        assert sum(row["certainty"] == "ambiguous" for row in rows) == 200
        for row in rows:
            row["link"] = "yes" if row["certainty"] == "likely" else "no"
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        assert "4000 pairs linked" in here.manage(*link, "--apply", str(table), "--wins", "there").stdout
        here.manage("sync_peer", "enable", "there")
        caught_up(here)
        assert are_level(here, there)
        accounts = here.accounts()
        assert len(accounts) == 6000
        assert sum(row[3] == "there" for row in accounts) == 5000  # theirs won; nothing of ours is lost
        assert len({row[1].lower() for row in accounts if row[0].startswith("Common")}) == 4000
        found = json.loads(here.manage(*link, "--json").stdout)
        assert not found["likely"], "what is linked is not offered again"
    finally:
        here.close()
        there.close()


@pytest.mark.xdist_group("linking")
def test_ours_win(tmp_path):
    nodes = make_nodes(tmp_path, "here", "there")
    here, there = nodes
    try:
        for node in nodes:
            node.manage("sync_peer", "disable", {"here": "there", "there": "here"}[node.name])
            node.run(f"Account.objects.bulk_create([Account(name='{node.name}', email='a@example.com')])")
        done = here.manage("sync_link", "--peer", "there", "--kind", "accounts", "--certain", "--wins", "here")
        assert "1 pairs linked" in done.stdout
        here.manage("sync_peer", "enable", "there")
        caught_up(here)
        assert are_level(here, there)
        assert [row[0] for row in there.accounts()] == ["here"]
        assert there.query("SELECT count(*) FROM sdata_sync_conflictrecord") == [(0,)]
    finally:
        for node in nodes:
            node.close()


@pytest.mark.xdist_group("related")
def test_a_node_with_an_older_model_strips_nothing(tmp_path):
    """a - b - c: b does not know phone and notes; edited at one end they arrive at the other, and survive b's own edit."""
    older = {**QUIET, "DJANGO_SETTINGS_MODULE": "tests.older.settings"}
    a, b, c = nodes = [Node(name, tmp_path, environment=older if name == "b" else QUIET) for name in "abc"]
    try:
        for node in nodes:
            node.create()
        b.add_peer(a)
        b.add_peer(c)
        serve(a, c)
        a.run("x = Account.objects.create(name='ACME', phone='1', notes='first')")
        caught_up(b)
        assert b.accounts()[0][2] == ""
        assert a.accounts() == c.accounts()
        c.run("x = Account.objects.get(); x.phone = '2'; x.save()")
        caught_up(b)
        b.run("x = Account.objects.get(); x.city = 'Berlin'; x.save()")
        caught_up(b)
        assert a.accounts() == c.accounts()
        assert a.accounts()[0][2:4] == ("2", "Berlin")
        # The node in the middle is upgraded: it takes over what it has kept, and nothing is sent for that.
        b.end_driver()
        before = b.digest()
        b.environment["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
        b.manage("migrate", "-v0")
        assert b.accounts() == a.accounts()
        caught_up(b, "--scan")
        assert b.digest() == before == a.digest() == c.digest()
    finally:
        for node in nodes:
            node.close()
