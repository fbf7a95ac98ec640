"""Whatever was missed is made good: real servers, real HTTP, real crashes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from uuid import uuid4
from xml.etree import ElementTree

import httpx2
import pytest

from testproject.nodes import ROOT, TOKEN, Node, are_level, wait_until

from ..wire import ENTRY, FEED, NS, digest_xml, entry_xml, feed_xml, results, ticks_in
from .test_two_nodes import serve

pytestmark = [pytest.mark.live]

#: Nobody delivers unless somebody says so.
QUIET = {"SDATA_DELIVERY": "sdata_sync.delivery.backends.manual.ManualDelivery"}
CRASHES = int(os.environ.get("SDATA_CRASHES", "10"))


def make_nodes(directory, *names, environment=QUIET) -> list[Node]:
    nodes = [Node(name, directory, environment=environment) for name in names]
    for node in nodes:
        node.create()
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.add_peer(other)
    serve(*nodes)
    return nodes


@pytest.fixture
def nodes(tmp_path):
    made = []

    def make(*names, **options):
        made.extend(make_nodes(tmp_path, *names, **options))
        return made

    yield make
    for node in made:
        node.close()


def caught_up(node, *options) -> list[dict]:
    """What ``sync_catchup`` says, which must have brought everything."""
    done = node.manage("sync_catchup", "--json", *options, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def count(node) -> int:
    return node.query("SELECT count(*) FROM crm_account")[0][0]


def bulk(node, rows, name="Old"):
    """Rows past the signals, as a table that was there before the app was."""
    node.run(f"Account.objects.bulk_create([Account(name=f'{name} {{n}}') for n in range({rows})])")


@pytest.mark.xdist_group("catchup-1")
class TestCommand:
    def test_first_contact_both_ways(self, nodes):
        here, there = nodes("here", "there")
        bulk(here, 1200, "Here")
        bulk(there, 700, "There")
        passed = caught_up(here, "--kind", "accounts")
        assert [(p["direction"], p["entries"], p["error"]) for p in passed] == [("pull", 700, ""), ("push", 1200, "")]
        assert are_level(here, there)
        assert count(here) == 1900
        [(applied, exceptions)] = there.query("SELECT applied, exceptions FROM sdata_sync_run")
        assert (applied, exceptions) == (700, 0)
        # The peers are told when an operation is not needed any more, and nothing is left to do.
        assert there.query("SELECT count(*) FROM sdata_sync_operation WHERE deleted_at = 0") == [(0,)]
        assert [(p["kind"], p["entries"]) for p in caught_up(here)] == [
            (kind, 0) for kind in ("accounts", "contacts", "salesOrders") for _ in ("pull", "push")
        ]
        assert "in sync" in here.manage("sync_catchup").stdout

    def test_it_counts_what_it_delivers_although_threads_of_its_process_could(self, nodes):
        looks_seldom = {"SDATA_POLL_SECONDS": "100", "SDATA_HEARTBEAT": "100"}
        here, there = nodes("here", "there", environment=looks_seldom)
        here.kill()
        here.end_driver()
        code = "Account.objects.bulk_create([Account(name=f'Row {n}') for n in range(300)])"
        here.manage("shell", "-c", f"from testproject.crm.models import Account\n{code}")
        passed = caught_up(here, "--scan", "--kind", "accounts")
        assert [(p["direction"], p["entries"]) for p in passed] == [("pull", 0), ("push", 300)]
        assert are_level(here, there)

    def test_one_direction_one_kind_one_peer(self, nodes):
        here, there = nodes("here", "there")
        here.run("Account.objects.create(name='Here')")
        there.run("Account.objects.create(name='There')")
        assert [p["direction"] for p in caught_up(here, "--pull", "--kind", "accounts", "--peer", "there")] == ["pull"]
        assert (count(here), count(there)) == (2, 1)
        caught_up(here, "--push")
        assert are_level(here, there)
        wrong = here.manage("sync_catchup", "--kind", "acounts", check=False)
        assert wrong.returncode == 1
        assert "There is no kind 'acounts' here" in wrong.stderr

    def test_a_peer_that_is_away(self, nodes):
        here, there, other = nodes("here", "there", "other")
        here.run("Account.objects.create(name='x')")
        there.kill()
        done = here.manage("sync_catchup", "--json", check=False)
        assert done.returncode == 1
        errors = {(p["peer"], p["direction"]): p["error"] for p in json.loads(done.stdout)}
        assert "ConnectError" in errors["there", "pull"]
        assert errors["other", "push"] == ""
        assert count(other) == 1

    def test_between_two_that_are_elsewhere(self, nodes):
        here, there, engine = nodes("here", "there", "engine")
        bulk(here, 1100)
        ends = ["--source", here.base_url, "--target", there.base_url]
        [passed, *others] = caught_up(engine, *ends)
        assert [other["entries"] for other in others] == [0, 0]
        assert (passed["entries"], passed["error"]) == (1100, "")
        assert are_level(here, there)
        assert count(engine) == 0
        assert here.query("SELECT applied FROM sdata_sync_run WHERE kind = 'accounts'") == [(1100,)]


@pytest.mark.xdist_group("catchup-2")
def test_the_walkthrough_of_the_specification(nodes):
    """Pages 5.1 to 5.7, request by request, by an engine of its own."""
    source, target = nodes("myApp1", "myApp2")
    source.run("for n in range(15): Account.objects.create(name=f'n{n}')")
    http = httpx2.Client(headers={"Authorization": f"Token {TOKEN}"}, timeout=120)
    run = {"runName": "Full CRM to ERP", "runStamp": "2009-10-14T08:51:02"}

    # 5.1: the target's digest
    digest = http.get(f"{target.base_url}/accounts/$syncDigest")
    assert digest.status_code == 200
    assert digest.headers["Content-Type"].startswith(ENTRY)

    # 5.2: the source selects, asynchronously
    asked = http.post(
        f"{source.base_url}/accounts/$syncSource",
        params={"trackingID": "DD052E5C-BFAD-4ffa-8D54-D696E4959497", **run},
        content=digest.content,
        headers={"Content-Type": ENTRY},
    )
    assert asked.status_code == 202
    location = asked.headers["Location"]
    assert location == f"{source.base_url}/accounts/$syncSource('DD052E5C-BFAD-4ffa-8D54-D696E4959497')"
    page = wait_until(lambda: (r := http.get(location, params={"count": 10})).status_code == 200 and r, what="the feed")

    reports = []
    while True:
        # 5.3: the target applies a page, asynchronously; 5.4 and 5.5 happen there
        tracking = str(uuid4())
        posted = http.post(
            f"{target.base_url}/accounts/$syncTarget",
            params={"trackingId": tracking, **run},
            content=page.content,
            headers={"Content-Type": FEED},
        )
        assert posted.status_code == 202
        done = wait_until(
            lambda at=posted.headers["Location"]: (r := http.get(at)).status_code == 200 and r, what="the results"
        )
        reports.append(done)
        deleted = http.delete(posted.headers["Location"])
        assert deleted.status_code == 200
        # 5.6: the next page
        links = ElementTree.fromstring(page.content).findall("atom:link", NS)
        following = next((link.get("href") for link in links if link.get("rel") == "next"), None)
        if following is None:
            break
        assert "startIndex=11&count=10" in following
        page = http.get(following)
    assert http.delete(location).status_code == 200
    assert [len(results(report)) for report in reports] == [10, 5]

    # 5.7: the source is told
    for report in reports:
        told = http.post(
            f"{source.base_url}/accounts/$syncResults",
            params=run,
            content=report.content,
            headers={"Content-Type": FEED},
        )
        assert told.status_code == 200
    assert source.query("SELECT name, stamp, applied FROM sdata_sync_run") == [(run["runName"], run["runStamp"], 15)]
    assert are_level(source, target)
    assert ticks_in(http.get(f"{target.base_url}/accounts/$syncDigest").content)[f"{source.base_url}/accounts"] == 16


@pytest.mark.xdist_group("catchup-2")
def test_a_poisoned_feed(nodes):
    """What one node cannot apply reaches the next all the same."""
    first, second = nodes("first", "second")
    source = "http://elsewhere.example/sdata/x/y/-/accounts"
    entries = [
        entry_xml(uuid4(), source, n, f"<name>n{n}</name><creditLimit>{'much' if n % 100 == 0 else n}</creditLimit>")
        for n in range(1, 1001)
    ]
    feed = feed_xml(digest_xml((source, 1001)), *entries, mode="catchUp")
    http = httpx2.Client(headers={"Authorization": f"Token {TOKEN}", "Content-Type": FEED}, timeout=120)
    answer = http.post(f"{first.base_url}/accounts/$syncTarget", content=feed)
    statuses = [result.status for result in results(answer)]
    assert (statuses.count(200), statuses.count(202)) == (990, 10)
    reasons = first.query("SELECT reason FROM sdata_sync_deferredentry")
    assert len(reasons) == 10
    assert all("creditLimit" in reason for (reason,) in reasons)
    done = second.manage("sync_catchup", "--json", "--pull", "--peer", "first", "--kind", "accounts", check=False)
    [passed] = json.loads(done.stdout)
    assert (done.returncode, passed["error"], passed["entries"], passed["deferred"]) == (1, "", 1000, 10)
    assert passed["waiting"].startswith("10 entries wait here: accounts ")
    assert count(second) == 990
    assert second.query("SELECT count(*) FROM sdata_sync_trackedresource") == [(1000,)]
    assert first.digest() == second.digest()


@pytest.mark.xdist_group("catchup-3")
class TestRestored:
    @pytest.mark.skipif("SDATA_SERVER" in os.environ, reason="restores a file")
    def test_no_edit_before_or_after_is_lost(self, nodes):
        here, there = nodes("here", "there")
        here.run("for n in range(20): Account.objects.create(name=f'Row {n}')")
        caught_up(here)
        here.end_driver()
        here.stop()
        shutil.copy(here.database.path, here.directory / "backup")
        here.serve()
        here.run("for n in range(50): Account.objects.create(name=f'Before {n}')")
        here.run("for a in Account.objects.filter(name__startswith='Row')[:10]: a.city = 'Before'; a.save()")
        caught_up(here)
        assert are_level(here, there)
        here.end_driver(kill=True)
        here.kill()
        for file in here.directory.glob("here.sqlite3*"):
            file.unlink()
        shutil.copy(here.directory / "backup", here.database.path)
        # Edits before anybody has noticed, some of the same rows.
        here.run("for n in range(50): Account.objects.create(name=f'After {n}')")
        here.run("for a in Account.objects.filter(name__startswith='Row')[5:15]: a.phone = 'After'; a.save()")
        here.serve()
        passed = caught_up(here)
        caught_up(here)
        assert are_level(here, there)
        rows = here.accounts()
        assert sum(row[0].startswith("Before") for row in rows) == 50
        assert sum(row[0].startswith("After") for row in rows) == 50
        changed = [(row[3], row[2]) for row in rows if row[0].startswith("Row")]
        # Five were changed before only, ten after: of the five changed both times the later edit stands.
        assert sum(city == "Before" for city, _ in changed) == 5
        assert sum(phone == "After" for _, phone in changed) == 10
        # What they lost against is kept.
        lost = here.query("SELECT remote_won, remote_payload FROM sdata_sync_conflictrecord")
        assert len(lost) == 5
        assert all(not remote_won and "<city>Before</city>" in payload for remote_won, payload in lost)
        assert not [p["error"] for p in passed if p["error"]]
        status = here.manage("sync_status", check=False).stdout
        assert "RESTORED" in status

    def test_on_purpose(self, nodes):
        here, there = nodes("here", "there")
        assert "accounts, there: knows no more" in here.manage("sync_rejoin").stdout
        there.kill()
        assert here.manage("sync_rejoin", check=False).returncode == 1


EDIT = """
with transaction.atomic():
    for account in Account.objects.order_by('?')[:40]:
        account.{column} = '{who}'; account.save()
"""


@pytest.mark.xdist_group("catchup-4")
def test_killed_at_any_moment(nodes):
    """Stamping, posting, applying and paging, killed where they stand; one catch-up later all is level."""
    here, there = nodes("here", "there")
    dice = random.Random(20091014)
    for crash in range(CRASHES):
        bulk(here, 150, f"Here {crash}")
        here.run(EDIT.format(column="city", who=f"here {crash}"))
        there.run(EDIT.format(column="phone", who=f"there {crash}"))
        there.run(f"Account.objects.create(name='There {crash}')")
        here.end_driver(kill=bool(crash % 2))
        command = [sys.executable, str(ROOT / "manage.py"), "sync_catchup", "--json"]
        engine = subprocess.Popen(
            command, env=here.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        time.sleep(dice.uniform(0.35, 1.1))
        if dice.random() < 0.5:
            there.kill()
            there.serve()
        engine.send_signal(signal.SIGKILL)
        engine.communicate()
    caught_up(here, "--scan")  # the rows of bulk()
    caught_up(here)
    assert here.digest() == there.digest()
    assert are_level(here, there)
    assert count(here) == CRASHES * 151
    for node in (here, there):
        assert node.query("SELECT count(*) FROM sdata_sync_deferredentry") == [(0,)]


@pytest.mark.xdist_group("catchup-3")
def test_rows_that_differ_though_digests_agree(nodes):
    here, there = nodes("here", "there")
    bulk(here, 30)
    caught_up(here)
    there.run("Account.objects.create(name='Theirs')")
    caught_up(here)
    assert "equal digests; 31 compared; equal" in here.manage("sync_verify").stdout
    # Damage that no digest shows: a row of the peer is changed, one is gone, and their tracking says otherwise.
    there.run(
        "from sdata_sync.models import TrackedResource as T\n"
        "from sdata_sync.registry import registry\n"
        "r = registry.of_kind('accounts')\n"
        "a, b = Account.objects.filter(name__in=['Old 3', 'Old 4']).order_by('name')\n"
        "T.objects.filter(local_key=str(b.pk)).delete()\n"
        "Account.objects.filter(pk=b.pk)._raw_delete('default')\n"
        "Account.objects.filter(pk=a.pk).update(city='damaged')\n"
        "from sdata_sync.sync.content.contents import read_contents\n"
        "tracked = T.objects.get(kind='accounts', local_key=str(a.pk))\n"
        "[contents] = read_contents(r, [tracked], allocate=True)[0].values()\n"
        "T.objects.filter(pk=tracked.pk).update(etag=r.etag(contents))"
    )
    found = here.manage("sync_verify", "--json", "--kind", "accounts", check=False)
    assert found.returncode == 1
    [comparison] = json.loads(found.stdout)
    assert (comparison["digests_agree"], comparison["different"], comparison["missing_there"]) == (True, 1, 1)
    assert here.manage("sync_verify", "--repair", check=False).returncode == 1
    caught_up(here)
    assert here.manage("sync_verify").returncode == 0
    assert are_level(here, there)


@pytest.mark.xdist_group("catchup-4")
def test_a_stall_that_no_save_would_end(nodes):
    """A row that came while nobody delivered, with nothing saved since: the comparison of digests finds it."""
    lively = {"SDATA_HEARTBEAT": "0.5", "SDATA_POLL_SECONDS": "0.3", **QUIET}
    here, there = nodes("here", "there", environment=lively)
    there.run("Account.objects.create(name='Unsent')")
    here.run("from sdata_sync.delivery.thread import ThreadDelivery\nbackend = ThreadDelivery()\nbackend.serve()")
    wait_until(lambda: count(here) == 1, what="the row to be pulled")
