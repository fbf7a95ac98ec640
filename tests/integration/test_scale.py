"""Many endpoints, many rows, many peers: what may grow with them, and what may not."""

import re

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from sdata_sync.core.digest import Digest
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import Digest as DigestRow
from sdata_sync.models import DigestEntry, Endpoint, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.identity.link import end_waiting
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.log.marks import new_uuid
from sdata_sync.sync.log.tracked import new_tracked
from sdata_sync.sync.select.changes import prepare_page
from sdata_sync.sync.select.feed import count_missing
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..talk import level, pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("scale"),
]
ACCOUNTS = registry.of_kind("accounts")


class TestManyEndpoints:
    ENDPOINTS = 10_000

    def statements(self, node, act) -> int:
        """Return how many statements ``act`` executes at ``node``."""
        with CaptureQueriesContext(connections[node.alias]) as seen:
            act()
        return len(seen)

    def test_nothing_is_done_for_each_of_them(self, a, b):
        with a.at_work():
            digest, _ = DigestRow.objects.get_or_create(pk="accounts")
            urls = [f"http://shop{n}.example.com/sdata/myApp2/myContract/-/accounts" for n in range(self.ENDPOINTS)]
            Endpoint.objects.bulk_create(Endpoint(url=url, key=url) for url in urls)
            DigestEntry.objects.bulk_create(
                DigestEntry(digest=digest, endpoint=endpoint, tick=5, conflict_priority=5)
                for endpoint in Endpoint.objects.filter(key__startswith="http://shop")
            )
            Account.objects.create(name="One")
        assert self.statements(b, lambda: pull(b, a, ["accounts"])) < self.ENDPOINTS / 20
        assert level(a, b)
        with b.at_work():
            assert len(load_digest(ACCOUNTS).value) == self.ENDPOINTS + 2
            row = Account.objects.get()
            row.city = "Rome"
            row.save()
        assert self.statements(a, lambda: push(b, a, ["accounts"])) < 60
        with b.at_work(), PeerSession(Peer.objects.get(name=a.alias)) as session:
            row.city = "Oslo"
            row.save()
            assert self.statements(a, lambda: session.deliver([ACCOUNTS])) < 60
        with a.at_work():
            assert Account.objects.get().city == "Oslo"


class TestManyRows:
    """The database finds what it is asked for by an index, however much is tracked."""

    ROWS = 30_000

    @pytest.fixture
    def much(self):
        Account.objects.create(name="One")
        stored = assign_ticks(ACCOUNTS)
        own = stored.ensure_endpoint_id(ACCOUNTS.endpoint)
        rows = []
        for number in range(self.ROWS):
            row = new_tracked("accounts" if number % 3 else "contacts", new_uuid())
            row.endpoint_id, row.tick, row.is_deleted = own, number + 10, True
            rows.append(row)
        TrackedResource.objects.bulk_create(rows, batch_size=1000)
        DigestEntry.objects.filter(digest="accounts", endpoint=own).update(tick=self.ROWS + 10)
        with connection.cursor() as cursor:
            cursor.execute({"mysql": "ANALYZE TABLE sdata_sync_trackedresource"}.get(connection.vendor, "ANALYZE"))
            if connection.vendor == "mysql":
                cursor.fetchall()
        yield
        TrackedResource.objects.all().delete()
        DigestRow.objects.all().delete()

    def plans(self, act) -> list[tuple[str, str]]:
        """Return each statement on the tracked table that ``act`` executes, and how the database goes about it."""
        with CaptureQueriesContext(connection) as seen:
            act()
        asked = [q["sql"] for q in seen.captured_queries if "sdata_sync_trackedresource" in q["sql"]]
        plans = []
        for sql in asked:
            if not re.match("SELECT|UPDATE", sql):
                continue
            explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
            with connection.cursor() as cursor:
                cursor.execute(f"{explain} {sql}")
                plans.append((sql, "\n".join(str(row) for row in cursor.fetchall())))
        assert plans
        return plans

    def by_index(self, plans):
        for sql, plan in plans:
            if connection.vendor == "sqlite":
                found = (
                    re.search(r"SEARCH (sdata_sync_trackedresource|U0)\b.* USING", plan) and "SCAN sdata" not in plan
                )
            elif connection.vendor == "postgresql":
                found = "Seq Scan on sdata_sync_trackedresource" not in plan
            else:
                found = "'ALL'" not in plan and "'index'" not in plan
            assert found, f"{sql}\n{plan}"

    def lacking_the_last(self, count):
        stored = load_digest(ACCOUNTS)
        own = stored.value.entry(ACCOUNTS.endpoint)
        return stored, Digest(origin="http://elsewhere/accounts").raised_all({own.endpoint: own.tick - count}, stamp=0)

    def test_little_is_selected_among_much(self, much):
        stored, target = self.lacking_the_last(100)
        self.by_index(self.plans(lambda: prepare_page(ACCOUNTS, stored, target, limit=500)))
        self.by_index(self.plans(lambda: count_missing(ACCOUNTS, stored, target)))

    def test_the_end_of_a_feed_finds_the_rows_that_wait_for_its_source(self, much):
        plans = self.plans(lambda: end_waiting(ACCOUNTS, "http://elsewhere/accounts"))
        self.by_index(plans)
        if connection.vendor == "sqlite":
            assert all("endpoint_id=?" in plan for _, plan in plans), plans

    def test_a_change_is_numbered_among_much(self, much):
        row = Account.objects.get()
        row.city = "Rome"
        row.save()  # its mark is an upsert by a unique key
        self.by_index(self.plans(lambda: assign_ticks(ACCOUNTS)))
