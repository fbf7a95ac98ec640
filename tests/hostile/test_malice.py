"""Random histories of three honest nodes and one peer that says whatever the grammar allows, with a pusher's login.

Nothing that it says is answered with 500. When its peer is disabled, the honest nodes become in sync by themselves, and
no edit of theirs is lost: of the rows that it has not written, each has the last edit that an honest node made. A row
that it has written may wait at a node as a deferred entry, which the status names.
"""

import os
import random
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from rest_framework.authtoken.models import Token

from sdata_sync.delivery.catchup import catch_up
from sdata_sync.delivery.progress import Progress
from sdata_sync.models import DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..many_nodes import LocalNode, wired
from ..wire import ENTRY, FEED, digest_entry, digest_xml, entry_xml, feed_xml

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("malice"),
]
HISTORIES = int(os.environ.get("SDATA_HISTORIES", "10000" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "20"))
ACCOUNTS = registry.of_model(Account)
DATASET = "http://mallory/sdata/a/b/-"
PATH = "/sdata/myApp2/myContract/-/accounts"
LEAP = 2**40
TICKS = [0, 1, 2, 3, 7, 50, 1000, LEAP - 1, LEAP, LEAP + 1, 2 * LEAP, 2**62, 2**63 - 2]
STAMPS = ["2001-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]


class Malice:
    """One history: honest nodes that edit and exchange, and a peer that means harm."""

    def __init__(self, seed, nodes):
        self.dice = random.Random(f"malice {seed}")
        self.nodes = nodes
        self.endpoints = [f"{node.base_url}/accounts" for node in nodes]
        self.own_uuids = [UUID(int=self.dice.getrandbits(128), version=4) for _ in range(3)]
        #: The uuids of the rows that it has tried to write.
        self.written: set[UUID] = set()
        self.edits = 0

    # The honest nodes.

    def edit(self, node):
        with node.at_work():
            rows = list(Account.objects.order_by("pk"))
            row = self.dice.choice(rows) if rows and self.dice.random() < 0.7 else Account()
            if row.pk and self.dice.random() < 0.1:
                row.delete()
            else:
                self.edits += 1
                row.name = f"edit {self.edits} of {node.alias}"
                row.save()

    def exchange(self, here, there, *, is_strict=False):
        with here.at_work():
            peers = Peer.objects.filter(name=there.alias)
            for passed in catch_up(peers, [ACCOUNTS], directions=["pull", "push"], make_progress=lambda *_: Progress()):
                assert not is_strict or not passed.error, passed.error

    # The other one.

    def client(self):
        return Client(headers={"authorization": "Token mallory"})

    def feed(self):
        dice = self.dice
        everybody = [f"{DATASET}/accounts", *self.endpoints, "http://x/y/z/-/accounts"]
        origin = dice.choice([f"{DATASET}/accounts"] * 6 + ["", *everybody])
        digest = digest_xml(*((e, dice.choice(TICKS)) for e in everybody if dice.random() < 0.6), origin=origin)
        if dice.random() < 0.2:
            part = dice.choice(everybody)
            digest = digest.replace("<digest ", f'<digest xmlns:dss="urn:django-sdata-sync" dss:partOf="{part}" ', 1)
        states = sorted((dice.choice(everybody), dice.choice(TICKS)) for _ in range(dice.randrange(4)))
        entries = [self.entry(*state) for number, state in enumerate(states) if state not in states[:number]]
        return feed_xml(
            digest, *entries, mode=dice.choice(["immediate", "catchUp"]), next_url=dice.choice(["", "", "more"])
        )

    def entry(self, endpoint, tick):
        dice = self.dice
        known = list(TrackedResource.objects.values_list("uuid", flat=True))
        uuid = dice.choice([*self.own_uuids, *([dice.choice(known)] if known and dice.random() < 0.3 else [])])
        self.written.add(uuid)
        content = dice.choice(
            ["<name>of mallory</name>", "<name>x</name><creditLimit>much</creditLimit>", "<name><b/></name>"]
        )
        replaced_by = dice.choice([*self.own_uuids, *known]) if dice.random() < 0.1 else ""
        if replaced_by:
            self.written.add(UUID(str(replaced_by)))
        entry = entry_xml(
            uuid,
            endpoint,
            tick,
            content,
            stamp=dice.choice(STAMPS),
            deleted=bool(replaced_by) or dice.random() < 0.3,
            replaced_by=replaced_by,
        )
        for name in ("withdrawn", "scoped"):
            if dice.random() < 0.1:
                entry = (
                    entry.replace("<account ", f'<account xmlns:dss="urn:django-sdata-sync" dss:{name}="true" ', 1)
                    if "xmlns:dss" not in entry
                    else entry
                )
        return entry

    def speak(self, node):
        client, dice = self.client(), self.dice
        with node.at_work():
            known = {row.uuid: row.local_key for row in TrackedResource.objects.all()}
            what = dice.choice(["push"] * 8 + ["set", "source", "results", "operation", "link"])
            if what == "push":
                response = client.post(f"{PATH}/$syncTarget", data=self.feed(), content_type=FEED)
            elif what == "set":
                body = digest_entry(*((e, dice.choice(TICKS)) for e in self.endpoints), origin=f"{DATASET}/accounts")
                response = client.put(f"{PATH}/$syncDigest", data=body, content_type=ENTRY)
            elif what == "source":
                body = digest_entry(
                    *((e, dice.choice(TICKS)) for e in self.endpoints), origin=dice.choice(self.endpoints)
                )
                response = client.post(f"{PATH}/$syncSource", data=body, content_type=ENTRY)
            elif what == "results":
                response = client.post(f"{PATH}/$syncResults", data=self.feed(), content_type=FEED)
            elif what == "operation":
                url = f"{PATH}/$syncTarget?trackingID={dice.randrange(3)}"
                response = client.post(url, data=self.feed(), content_type=FEED)
                client.get(f"{PATH}/$syncTarget('{dice.randrange(3)}')")
            else:
                response = client.delete(f"{PATH}/$linked('{dice.choice(list(known) or [uuid4()])}')")
            assert response.status_code < 500, response.content
            # Rows that another uuid has given up, or that were merged, count as written too.
            self.written |= {row.uuid for row in TrackedResource.objects.filter(replaced_by__in=self.written)}

    def run(self, steps):
        for _ in range(steps):
            what = self.dice.random()
            node, other = self.dice.sample(self.nodes, 2)
            if what < 0.35:
                self.edit(node)
            elif what < 0.7:
                self.speak(node)
            else:
                self.exchange(node, other)

    def end(self):
        """Disable the peer, and let the honest nodes exchange what they have."""
        for node in self.nodes:
            with node.at_work():
                Peer.objects.filter(name="mallory").update(enabled=False)
                response = self.client().post(f"{PATH}/$syncTarget", data=self.feed(), content_type=FEED)
                assert response.status_code == 403
        for number in range(5):
            for here in self.nodes:
                for there in self.nodes:
                    if here is not there:
                        self.exchange(here, there, is_strict=number == 4)


def contents(node):
    """Return the names of the accounts of a node by uuid."""
    with node.at_work():
        assign_ticks(ACCOUNTS)
        names = dict(Account.objects.values_list("pk", "name"))
        tracked = TrackedResource.objects.filter(kind="accounts", local_key__isnull=False)
        return {row.uuid: names[int(row.local_key)] for row in tracked}


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_the_honest_nodes_become_in_sync(seed, monkeypatch):
    nodes = [LocalNode(number) for number in range(3)]
    with wired(nodes, monkeypatch):
        for node in nodes:
            node.settings["MAX_STAMP_AHEAD_SECONDS"] = 86400
            node.reset([other for other in nodes if other is not node])
            with node.at_work():
                permissions = Permission.objects.filter(codename__in=["read_feeds", "push_feeds"])
                Peer.objects.update(filters_us=False)
                for user in User.objects.all():
                    user.is_superuser = False
                    user.save()
                    user.user_permissions.set(permissions)
                mallory = User.objects.create(username="mallory")
                mallory.user_permissions.set(permissions)
                Token.objects.create(user=mallory, key="mallory")
                Peer.objects.create(name="mallory", url=DATASET, user=mallory)
        history = Malice(seed, nodes)
        history.run(40)
        after = {}
        for node in nodes:  # and edits after all that, of rows that it has not written
            with node.at_work():
                account = Account.objects.create(name=f"afterwards at {node.alias}")
                assign_ticks(ACCOUNTS)
                after[TrackedResource.objects.get(kind="accounts", local_key=str(account.pk)).uuid] = account.name
        before = [contents(node) for node in nodes]
        history.end()
        first, *others = (contents(node) for node in nodes)
        waiting = set()  # what it has written and a node reports as deferred, which an administrator decides
        for node in nodes:
            with node.at_work():
                waiting |= set(DeferredEntry.objects.values_list("resource__uuid", flat=True))
        assert waiting <= history.written
        for other in others:
            assert {u: n for u, n in other.items() if u not in history.written} == {
                u: n for u, n in first.items() if u not in history.written
            }
            assert other.keys() - waiting == first.keys() - waiting
        digests = []
        for node in nodes:
            with node.at_work():
                ours = load_digest(ACCOUNTS).value
                digests.append({endpoint: ours.tick(endpoint) for endpoint in history.endpoints})
        assert digests[0] == digests[1] == digests[2]
        for uuid, name in after.items():
            assert first[uuid] == name
        # What two nodes had alike before the end, and it has not written, is there still.
        for uuid in set.intersection(*(set(each) for each in before)) - history.written:
            if len({each[uuid] for each in before}) == 1:
                assert first.get(uuid) == before[0][uuid]
