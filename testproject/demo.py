"""``make demo``: two nodes, two servers, two SQLite files, and what happens between them."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from .nodes import AT_ONCE, PASSWORD, Node, are_level, wait_until


class Clerk:
    """Somebody who works in the admin of a node, in a browser's stead."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{node.port}", timeout=30)
        self._submit("/admin/login/?next=/admin/", username="admin", password=PASSWORD)

    def _submit(self, path: str, **values: str) -> None:
        page = self._http.get(path).text
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        if found is None:
            raise RuntimeError(f"There is no form at {path} of {self.node.name}")
        answer = self._http.post(path, data={"csrfmiddlewaretoken": found[1], **values})
        if answer.status_code != 302:  # a form that was taken sends on to another page
            raise RuntimeError(f"{path} of {self.node.name} did not take {values}: {answer.status_code}")

    def create(self, name: str, **values: str) -> None:
        """Fill in the form for a new account."""
        self._submit("/admin/crm/account/add/", name=name, is_active="on", **values)

    def edit(self, name: str, **values: str) -> None:
        """Change the account called ``name``."""
        self._submit(f"/admin/crm/account/{self._key(name)}/change/", **{"name": name, "is_active": "on", **values})

    def delete(self, name: str) -> None:
        """Delete the account called ``name``."""
        self._submit(f"/admin/crm/account/{self._key(name)}/delete/", post="yes")

    def order(self, number: str, account: str, *lines: str) -> None:
        """Fill in the form for an order of the account called ``account``, with its lines."""
        values = {"account": self._key(account), "order_number": number, "order_date": "2026-01-31", "sub_total": 27}
        values |= {"lines-TOTAL_FORMS": len(lines), "lines-INITIAL_FORMS": 0}
        for index, text in enumerate(lines):
            line = {"line_number": index + 1, "description": text, "order_qty": 1, "unit_price": 9}
            values |= {f"lines-{index}-{name}": value for name, value in line.items()}
        self._submit("/admin/crm/salesorder/add/", **{name: str(value) for name, value in values.items()})

    def _key(self, name: str) -> int:
        return int(self.node.query("SELECT id FROM crm_account WHERE name = ?", name)[0][0])


def say(text: str = "") -> None:
    """Print, at once."""
    print(text, flush=True)


def show(node: Node) -> None:
    """Print the accounts of a node."""
    for name, _, _, city, *_ in node.accounts():
        say(f"      {node.name:8} {name:24} {city}")


def arrived(what: str, node: Node, sql: str, *parameters: str, present: bool = True) -> None:
    """Wait until a row is there, or gone, and print how long that took."""
    started = time.perf_counter()
    wait_until(lambda: bool(node.query(sql, *parameters)) is present, what=f"{what} at {node.name}", pause=AT_ONCE)
    say(f"   {what:44} at {node.name} after {(time.perf_counter() - started) * 1000:6.1f} ms")


def work(shop: Node, branch: Node) -> None:
    """Let people work."""
    at_shop, at_branch = Clerk(shop), Clerk(branch)
    by_name = "SELECT 1 FROM crm_account WHERE name = ?"
    say("\n1. Somebody works in the admin of the shop; each time, from the server's answer on:")
    at_shop.create("Warm-up")  # the first change opens connections
    arrived("Warm-up created", branch, by_name, "Warm-up")
    for name, city in (("Chemical Brothers Inc.", "London"), ("Natural Goods Ltd.", "Bristol")):
        at_shop.create(name, city=city)
        arrived(f"{name} created", branch, by_name, name)
    at_shop.edit("Natural Goods Ltd.", city="Cardiff")
    arrived(
        "Natural Goods Ltd. moved to Cardiff",
        branch,
        f"{by_name} AND city = ?",
        "Natural Goods Ltd.",
        "Cardiff",
    )
    at_shop.delete("Warm-up")
    arrived("Warm-up deleted", branch, by_name, "Warm-up", present=False)

    say("\n2. And the other way round:")
    at_branch.create("Branch Customer", city="Leeds")
    arrived("Branch Customer created", shop, by_name, "Branch Customer")

    say("\n3. An order with its lines, which refers to an account that has another key at the other side:")
    at_branch.order("4711", "Branch Customer", "Tea", "Milk", "Sugar")
    with_lines = (
        "SELECT 1 FROM crm_salesorder o JOIN crm_account a ON a.id = o.account_id "
        "JOIN crm_salesorderline l ON l.order_id = o.id WHERE o.order_number = ? GROUP BY o.id HAVING count(*) = 3"
    )
    arrived("Order 4711 with three lines", shop, with_lines, "4711")

    say("\n4. The branch's server is killed. Both go on working: the branch from a shell.")
    branch.kill()
    at_shop.edit("Chemical Brothers Inc.", city="Manchester")
    at_shop.create("While You Were Out", city="York")
    branch.run("Account.objects.create(name='Offline Customer', city='Hull')")
    branch.run("row = Account.objects.get(name='Branch Customer'); row.city = 'Sheffield'; row.save()")
    wait_until(lambda: shop.query("SELECT 1 FROM sdata_sync_stream WHERE failures > 0"), what="the shop to notice")
    error = shop.query("SELECT last_error FROM sdata_sync_stream WHERE failures > 0")[0][0]
    say(f"   The shop says: {error}")

    say("\n5. The branch's server is back. Nobody does anything about it:")
    started = time.perf_counter()
    branch.end_driver()
    branch.serve()
    wait_until(lambda: are_level(shop, branch), seconds=60, what="both to be in sync")
    say(f"   In sync {time.perf_counter() - started:.1f} s after it was started, most of which is its start.")
    show(shop)
    show(branch)
    for node in (shop, branch):
        say(f"   digest at {node.name}:")
        for endpoint, tick in sorted(node.digest().items()):
            say(f"      {endpoint}  {tick}")


def main() -> None:
    """Run the demo; end by itself, or stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="leave the servers running until interrupted")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever ends the demo ends its servers
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="sdata-sync-demo-") as directory:
        shop, branch = (Node(name, Path(directory), environment={"DJANGO_DEBUG": "1"}) for name in ("shop", "branch"))
        say("Two projects, each with its own database and server, make each other their peer ...")
        try:
            for node in (shop, branch):
                node.create()
                node.end_driver()
            shop.add_peer(branch)
            branch.add_peer(shop)
            for node in (shop, branch):
                node.serve()
            say("\nLog in as admin, password admin:")
            for node in (shop, branch):
                say(f"   {node.name:8} http://127.0.0.1:{node.port}/admin/")
            work(shop, branch)
            if options.stay:
                say("\nThe servers stay until you press Ctrl-C. Save an account at one and look at the other.")
                while shop.is_serving and branch.is_serving:
                    time.sleep(0.5)
            else:
                say("\nThat is it. To look around in the two admins: make demo STAY=1")
        except KeyboardInterrupt:
            say("\nEnding.")
        finally:
            for node in (shop, branch):
                node.stop()
                node.close()


if __name__ == "__main__":
    sys.exit(main())
