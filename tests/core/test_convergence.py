"""Random histories of 2 to 6 nodes end level: equal data, equal digests."""

import random

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from .simulation import DELETED, Node, catch_up, push_immediate, talk_until_quiet

UUIDS = st.sampled_from(["u1", "u2", "u3", "u4"])
CONTENTS = st.sampled_from(["red", "green", "blue", "white"])
PAGE_SIZES = st.integers(1, 3)
CUTS = st.one_of(st.none(), st.integers(0, 2))


class Histories(RuleBasedStateMachine):
    """Edits, deletes, pushes that are lost, repeated or cut off, catch-ups, skewed clocks, priorities."""

    literal = False

    @initialize(
        priorities=st.one_of(
            st.integers(2, 6).map(lambda n: [5] * n),
            st.permutations(range(1, 7)).flatmap(lambda p: st.integers(2, 6).map(lambda n: p[:n])),
            st.lists(st.integers(1, 3), min_size=2, max_size=6),
        ),
        skews=st.lists(st.sampled_from([0, 0, -40, 15, 3600]), min_size=6, max_size=6),
    )
    def start(self, priorities, skews):
        self.now = 1000
        self.nodes = [Node(f"n{i}", priority, skews[i], literal=self.literal) for i, priority in enumerate(priorities)]
        self.remembered = {}

    def node(self, index: int) -> Node:
        return self.nodes[index % len(self.nodes)]

    def pair(self, source: int, offset: int) -> tuple[Node, Node]:
        source_index = source % len(self.nodes)
        target_index = (source_index + 1 + offset % (len(self.nodes) - 1)) % len(self.nodes)
        return self.nodes[source_index], self.nodes[target_index]

    @rule(node=st.integers(0, 5), uuid=UUIDS, content=CONTENTS, pause=st.integers(0, 20))
    def edit(self, node, uuid, content, pause):
        self.now += pause
        self.node(node).write(uuid, content, self.now)

    @rule(node=st.integers(0, 5), uuid=UUIDS)
    def delete(self, node, uuid):
        self.now += 1
        self.node(node).write(uuid, DELETED, self.now)

    @rule(source=st.integers(0, 5), offset=st.integers(0, 4), size=PAGE_SIZES, cut=CUTS)
    def push(self, source, offset, size, cut):
        source, target = self.pair(source, offset)
        known = self.remembered.get((source, target), target.digest)
        push_immediate(source, target, known, size, fail_after=cut)
        if cut is None:
            self.remembered[source, target] = target.digest

    @rule(source=st.integers(0, 5), offset=st.integers(0, 4), size=PAGE_SIZES)
    def push_whose_answer_is_lost(self, source, offset, size):
        # Applied at the target, but the source still believes what it knew before: it will repeat itself.
        source, target = self.pair(source, offset)
        push_immediate(source, target, self.remembered.get((source, target), target.digest), size)

    @rule(source=st.integers(0, 5), offset=st.integers(0, 4), size=PAGE_SIZES, cut=CUTS)
    def pass_of_catch_up(self, source, offset, size, cut):
        source, target = self.pair(source, offset)
        catch_up(source, target, size, fail_after=cut)

    @rule(node=st.integers(0, 5), priority=st.integers(1, 9))
    def change_priority(self, node, priority):
        self.node(node).prioritized(priority)

    def teardown(self):
        if not hasattr(self, "nodes"):
            return
        talk_until_quiet(self.nodes)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            assert node.digest.in_sync_with(first.digest)
            assert node.contents() == first.contents()


class LiteralHistories(Histories):
    """The same without the three additions."""

    literal = True


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=settings().max_examples,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def random_history(seed: int, *, literal: bool) -> list[Node]:
    """Return 3 to 5 nodes with ranked priorities or skewed clocks after a random history and a long talk."""
    dice = random.Random(seed)
    count = dice.randint(3, 5)
    priorities = dice.sample(range(1, 10), count) if dice.random() < 0.5 else [5] * count
    nodes = [
        Node(f"n{i}", priority, dice.choice([0, 0, -40, 15]), literal=literal) for i, priority in enumerate(priorities)
    ]
    now = 1000
    for _ in range(40):
        now += dice.randint(0, 20)
        if dice.random() < 0.5:
            content = dice.choice([DELETED, "red", "green", "blue"])
            dice.choice(nodes).write(dice.choice(["u1", "u2"]), content, now)
        else:
            source, target = dice.sample(nodes, 2)
            catch_up(source, target, size=2)
    for _ in range(8):
        for source in nodes:
            for target in nodes:
                if source is not target:
                    catch_up(source, target, size=50)
    return nodes


def differs(nodes: list[Node]) -> bool:
    return any(node.contents() != nodes[0].contents() for node in nodes)


def test_the_pages_taken_literally_do_not_converge():
    """Without the additions some nodes differ for good; the same histories converge with them."""
    seeds = range(400)
    literal = [seed for seed in seeds if differs(random_history(seed, literal=True))]
    assert len(literal) > 4, "the simulation is too tame to show what the additions are for"
    assert not [seed for seed in seeds if differs(random_history(seed, literal=False))]


def test_the_state_machine_finds_the_literal_rules_wanting():
    """The machine itself can fail: with the additions switched off, it does."""
    from hypothesis import Phase
    from hypothesis.stateful import run_state_machine_as_test

    wild = settings(
        max_examples=3000,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(LiteralHistories, settings=wild)
