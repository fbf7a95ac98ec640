"""Random histories of moves and deletions with each value of ``on_delete``, in trees and over several kinds; faults between.

What must hold at the end, when administrators have decided about the deletions that are held back: all nodes have the
same rows with the same columns, the digests are equal, nothing waits, and no row has gone that nobody deleted.
"""

import os
from contextlib import suppress

import hypothesis.strategies as st
import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, RestrictedError
from hypothesis import HealthCheck, Phase, given, settings

import sdata_sync
from sdata_sync.delivery.catchup import catch_up
from sdata_sync.delivery.progress import Progress
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import DeferredEntry, Peer, PendingReference, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.content.deferred import apply_deletions, keep_rows
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.scan import scan

from ..many_nodes import LocalNode, Steps, wired
from ..shapes.models import Asset, Owner, Service
from .test_histories import FAULTS, NODES, OTHERS

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("deletion histories"),
]

HISTORIES = int(os.environ.get("SDATA_HISTORIES", "1000" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "25"))
ROWS, WORDS = st.integers(0, 4), st.sampled_from(["x", "y", "z"])
REFERENCES = ["cascade", "needs", "protect", "restrict", "set_null", "set_default", "set_value", "do_nothing"]
MOVES = st.lists(st.tuples(ROWS, st.sampled_from(REFERENCES), ROWS), max_size=4)
DELETIONS = st.lists(st.tuples(st.sampled_from([Owner, Asset]), ROWS), min_size=1, max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("create owner"), NODES, ROWS),
    st.tuples(st.just("create asset"), NODES, ROWS, st.sampled_from(REFERENCES), ROWS),
    st.tuples(st.just("create service"), NODES, ROWS),
    st.tuples(st.just("move"), NODES, MOVES),
    st.tuples(st.just("move owner"), NODES, ROWS, ROWS),
    st.tuples(st.just("edit owner"), NODES, ROWS, WORDS),
    st.tuples(st.just("edit asset"), NODES, ROWS, WORDS),
    st.tuples(st.just("set members"), NODES, ROWS, st.lists(ROWS, max_size=2)),
    st.tuples(st.just("delete"), NODES, DELETIONS),
    st.tuples(st.just("move and delete"), NODES, MOVES, DELETIONS),
    st.tuples(st.just("deliver"), NODES, OTHERS, st.lists(st.sampled_from(FAULTS), max_size=4)),
    st.tuples(st.just("deliver"), NODES, OTHERS, st.just([])),
    st.tuples(st.just("catch up"), NODES, OTHERS, st.lists(st.sampled_from(FAULTS), max_size=6)),
    st.tuples(st.just("catch up with"), NODES, OTHERS, st.sampled_from(["owners", "assets", "services"])),
)
REFUSED = (ProtectedError, RestrictedError, IntegrityError)


class History(Steps):
    def begin(self):
        """Every node has the owner that stands in for deleted ones."""
        with self.nodes[0].at_work():
            Owner.objects.create(name="nobody")
            self.caught_up(Peer.objects.all())

    def row(self, model, number):
        rows = model.objects.order_by("pk")
        rows = list(rows.exclude(name="nobody") if model is Owner else rows)
        return rows[number % len(rows)] if rows else None

    def create_owner(self, node, above):
        Owner.objects.create(name=f"of {node}", above=self.row(Owner, above))

    def create_asset(self, node, needs, reference, other):
        if owner := self.row(Owner, needs):
            Asset.objects.create(name=f"of {node}", **{"needs": owner, reference: self.row(Owner, other)})

    def create_service(self, node, number):
        if asset := self.row(Asset, number):
            Service.objects.create(asset=asset, name=f"of {node}")

    def move(self, node, moves):
        for number, reference, other in moves:
            if (asset := self.row(Asset, number)) and (owner := self.row(Owner, other)):
                setattr(asset, reference, owner)
                asset.save()

    def move_owner(self, node, number, above):
        owner, other = self.row(Owner, number), self.row(Owner, above)
        if owner is not None and owner != other:
            owner.above = other
            owner.save()

    def edit_owner(self, node, number, word):
        if owner := self.row(Owner, number):
            owner.name = word
            owner.save()

    def edit_asset(self, node, number, word):
        if asset := self.row(Asset, number):
            asset.name = word
            asset.save()

    def set_members(self, node, number, others):
        if asset := self.row(Asset, number):
            asset.members.set([owner for other in others if (owner := self.row(Owner, other))])

    def delete(self, node, deletions):
        for model, number in deletions:
            if row := self.row(model, number):
                with suppress(*REFUSED):
                    row.delete()

    def move_and_delete(self, node, moves, deletions):
        with suppress(*REFUSED), transaction.atomic():
            self.move(node, moves)
            for model, number in deletions:
                if row := self.row(model, number):
                    row.delete()

    def deliver(self, node, offset, faults):
        self.faults = list(faults)
        with PeerSession(self.peer(node, offset)) as session:
            session.deliver(registry, impatient=True)

    def catch_up(self, node, offset, faults):
        self.faults = list(faults)
        self.caught_up([self.peer(node, offset)])

    def catch_up_with(self, node, offset, kind):
        self.caught_up([self.peer(node, offset)], [registry.of_kind(kind)])

    def peer(self, node, offset):
        return Peer.objects.get(name=f"node{(node + offset) % 3}")

    def caught_up(self, peers, resources=registry):
        return list(catch_up(peers, resources, directions=("pull", "push"), make_progress=lambda *_: Progress()))

    def end(self, decisions):
        """Catch up; let administrators decide what is held back; until nothing is."""
        for number in range(12):
            self.all_catch_up()
            held = self.held()
            if not held:
                return
            node, kind, entry = held[0]
            with node.at_work():
                wants_deletion = decisions[number % len(decisions)] == "apply"
                # What protects a row, or needs it, can only be heeded.
                if not (wants_deletion and apply_deletions(registry.of_kind(kind), [entry])):
                    assert keep_rows(registry.of_kind(kind), [entry])
        raise AssertionError(f"It never ends: {self.reasons()}")

    def reasons(self):
        found = []
        for node in self.nodes:
            with node.at_work():
                found += [(node.alias, str(entry), entry.is_deleted) for entry in DeferredEntry.objects.all()]
        return found

    def all_catch_up(self):
        for _ in range(4):
            for node in self.nodes:
                with node.at_work():
                    errors = [p.error for p in self.caught_up(Peer.objects.all()) if p.error]
                    assert not errors, errors

    def held(self):
        found = []
        for node in self.nodes:
            with node.at_work():
                for entry in DeferredEntry.objects.filter(is_deleted=True).select_related("resource"):
                    assert "when it deleted it" not in entry.reason, entry.reason
                    found.append((node, entry.resource.kind, entry.pk))
        return found

    def content(self, node):
        with node.at_work():
            for resource in registry:
                found = scan(resource)
                assert found.total == 0, (node.alias, resource, found)
            assert not TrackedResource.objects.filter(mark__isnull=False).exists()
            names = {(t.kind, t.local_key): str(t.uuid) for t in TrackedResource.objects.exclude(local_key=None)}

            def name(kind, key):
                return None if key is None else names[kind, str(key)]

            owners = [(name("owners", o.pk), o.name, name("owners", o.above_id)) for o in Owner.objects.all()]
            assets = [
                (
                    name("assets", a.pk),
                    a.name,
                    *(name("owners", getattr(a, f"{reference}_id")) for reference in REFERENCES),
                    sorted(name("owners", member.pk) for member in a.members.all()),
                )
                for a in Asset.objects.all()
            ]
            services = [(name("services", s.pk), s.name, name("assets", s.asset_id)) for s in Service.objects.all()]
            return sorted(owners), sorted(assets, key=str), sorted(services)

    def digests(self, node):
        with node.at_work():
            return {r.name: {e.endpoint: e.tick for e in load_digest(r).value if e.tick > 1} for r in registry}

    def waiting(self, node):
        """Nothing waits, but for what refers to something that was deleted."""
        with node.at_work():
            gone = set(TrackedResource.objects.filter(is_deleted=True).values_list("kind", "uuid"))
            for entry in DeferredEntry.objects.all():
                assert "has not arrived yet" in entry.reason, entry.reason
                for reference in PendingReference.objects.filter(resource=entry.resource_id):
                    assert (reference.kind, reference.uuid) in gone, reference
            for reference in PendingReference.objects.all():
                assert (reference.kind, reference.uuid) in gone, reference


@pytest.fixture(scope="module")
def patch():
    kinds = [resource.model for resource in registry]
    usual = {model: type(registry.of_model(model).declared) for model in kinds}
    for model in kinds:
        sdata_sync.unregister(model)
    with (
        pytest.MonkeyPatch.context() as patch,
        sdata_sync.registered(Owner),
        sdata_sync.registered(Asset, AssetSync),
        sdata_sync.registered(Service),
    ):
        yield patch
    for model, resource in usual.items():
        sdata_sync.register(model)(resource)


class AssetSync(sdata_sync.SyncResource):
    fields = ["name", *REFERENCES, "members"]


def test_they_end_level(patch):
    @settings(
        max_examples=HISTORIES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        phases=[Phase.generate] if os.environ.get("SDATA_NO_SHRINK") else list(Phase),
        derandomize=os.environ.get("HYPOTHESIS_PROFILE") != "long",
    )
    @given(
        steps=st.lists(STEPS, min_size=5, max_size=30),
        priorities=st.sampled_from([(5, 5, 5), (5, 5, 5), (1, 2, 3), (3, 1, 3)]),
        skews=st.sampled_from([(0, 0, 0), (0, -3_600_000, 5_000)]),
        decisions=st.lists(st.sampled_from(["apply", "keep"]), min_size=1, max_size=4),
    )
    def histories(steps, priorities, skews, decisions):
        for node, priority, skew in zip(nodes, priorities, skews, strict=True):
            node.settings["CONFLICT_PRIORITY"], node.skew_millis = priority, skew
            node.reset([other for other in nodes if other is not node])
        history = History(wire, nodes)
        history.begin()
        for step in steps:
            history.step(*step)
        history.end(decisions)
        for node in nodes:
            history.waiting(node)
        first, *others = [history.content(node) for node in nodes]
        for other in others:
            assert other == first
        first, *others = [history.digests(node) for node in nodes]
        for other in others:
            assert other == first

    nodes = [LocalNode(number) for number in range(3)]
    with wired(nodes, patch) as wire:
        histories()
