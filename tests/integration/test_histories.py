"""Random histories of three nodes, with the real code: databases, HTTP, faults between any two steps."""

import os

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from sdata_sync.delivery.catchup import catch_up
from sdata_sync.delivery.progress import Progress
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import DeferredEntry, Peer, Stream, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.scan import scan
from testproject.crm.models import Account

from ..many_nodes import LocalNode, wired

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("histories"),
]

HISTORIES = int(os.environ.get("SDATA_HISTORIES", "5000" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "100"))
ACCOUNTS = registry.of_kind("accounts")

NODES, OTHERS = st.integers(0, 2), st.integers(1, 2)
FAULTS = ["", "", "", "request lost", "response lost", "response cut off", "died while applying"]
STEPS = st.one_of(
    st.tuples(st.just("create"), NODES, st.sampled_from("abc")),
    st.tuples(st.just("edit"), NODES, st.integers(0, 5), st.sampled_from(["red", "green", "blue"])),
    st.tuples(st.just("edit past the signals"), NODES, st.integers(0, 5), st.sampled_from(["red", "green", "blue"])),
    st.tuples(st.just("delete"), NODES, st.integers(0, 5)),
    st.tuples(st.just("scan"), NODES),
    st.tuples(st.just("deliver"), NODES, OTHERS, st.lists(st.sampled_from(FAULTS), max_size=4)),
    st.tuples(st.just("catch up"), NODES, OTHERS, st.lists(st.sampled_from(FAULTS), max_size=6)),
)


class History:
    def __init__(self, wire, nodes):
        self.wire, self.nodes = wire, nodes
        self.faults = []
        wire.fault = lambda: self.faults.pop(0) if self.faults else ""

    def row(self, number):
        rows = list(Account.objects.order_by("name", "pk"))
        return rows[number % len(rows)] if rows else None

    def step(self, what, node, *rest):
        with self.nodes[node].at_work():
            getattr(self, what.replace(" ", "_"))(node, *rest)
        self.faults = []

    def create(self, node, name):
        Account.objects.create(name=f"{name} of {node}")

    def edit(self, node, number, city):
        if row := self.row(number):
            row.city = city
            row.save()

    def edit_past_the_signals(self, node, number, city):
        if row := self.row(number):
            Account.objects.filter(pk=row.pk).update(city=city)

    def delete(self, node, number):
        if row := self.row(number):
            row.delete()

    def scan(self, node):
        scan(ACCOUNTS)

    def deliver(self, node, offset, faults):
        self.faults = list(faults)
        with PeerSession(self.peer(node, offset)) as session:
            session.deliver([ACCOUNTS], impatient=True)

    def catch_up(self, node, offset, faults):
        self.faults = list(faults)
        list(self.caught_up([self.peer(node, offset)]))

    def peer(self, node, offset):
        return Peer.objects.get(name=f"node{(node + offset) % 3}")

    def caught_up(self, peers):
        return list(catch_up(peers, [ACCOUNTS], directions=("pull", "push"), make_progress=lambda *_: Progress()))

    def end(self):
        """Everybody talks to everybody, twice: what the first round makes, the second brings home."""
        for node in self.nodes:
            with node.at_work():
                scan(ACCOUNTS)
        for _ in range(2):
            for node in self.nodes:
                with node.at_work():
                    passed = self.caught_up(Peer.objects.all())
                    assert not [p.error for p in passed if p.error]

    def contents(self):
        return [self.content(node) for node in self.nodes]

    def content(self, node):
        with node.at_work():
            tracked = {t.local_key: t.uuid for t in TrackedResource.objects.exclude(local_key=None)}
            rows = sorted((str(tracked[str(a.pk)]), a.name, a.city) for a in Account.objects.all())
            ticks = {entry.endpoint: entry.tick for entry in load_digest(ACCOUNTS).value if entry.tick > 1}
            assert not DeferredEntry.objects.exists()
            assert not TrackedResource.objects.filter(mark__isnull=False).exists()
            assert not Stream.objects.exclude(holder="").exists()
            return rows, ticks


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_they_end_level(patch):
    @settings(
        max_examples=HISTORIES, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    @given(
        steps=st.lists(STEPS, min_size=5, max_size=25),
        priorities=st.sampled_from([(5, 5, 5), (1, 2, 3), (3, 1, 3)]),
        skews=st.sampled_from([(0, 0, 0), (0, -3_600_000, 5_000), (90_000, 0, 0)]),
    )
    def histories(steps, priorities, skews):
        for node, priority, skew in zip(nodes, priorities, skews, strict=True):
            node.settings["CONFLICT_PRIORITY"], node.skew_millis = priority, skew
            node.reset([other for other in nodes if other is not node])
        history = History(wire, nodes)
        for step in steps:
            history.step(*step)
        history.end()
        first, *others = history.contents()
        assert [other == first for other in others] == [True, True], history.contents()

    nodes = [LocalNode(number) for number in range(3)]
    with wired(nodes, patch) as wire:
        histories()
