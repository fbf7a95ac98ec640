"""Every row of the specification's tables, by page."""

import pytest

from sdata_sync.core.decision import Relation, Rule, decide, resolve
from sdata_sync.core.digest import Digest, DigestEntry
from sdata_sync.core.order import TickError, TickFault, TickOrder
from sdata_sync.core.ranges import TickRange, missing_ranges, select
from sdata_sync.core.state import SyncState, is_later, stamp_after

NODES = ("N1", "N2", "N3")


def digest(*ticks: int, priorities=(1, 2, 3), origin="") -> Digest:
    return Digest(
        (
            DigestEntry(endpoint=node, tick=tick, conflict_priority=priority)
            for node, tick, priority in zip(NODES, ticks, priorities, strict=True)
        ),
        origin=origin,
    )


def state(endpoint: str, tick: int, stamp: int = 0) -> SyncState:
    return SyncState(endpoint=endpoint, tick=tick, stamp=stamp)


def ticks(value: Digest) -> tuple[int, ...]:
    return tuple(value.tick(node) for node in NODES)


class TestPage21ComparingVectors:
    """2.1: equal, before, after, not comparable."""

    @pytest.mark.parametrize(
        ("one", "other", "one_covers", "other_covers"),
        [
            ((5, 7, 8), (5, 7, 8), True, True),
            ((5, 7, 8), (5, 8, 8), False, True),
            ((6, 7, 9), (5, 7, 8), True, False),
            ((6, 7, 9), (5, 8, 8), False, False),
        ],
    )
    def test_row(self, one, other, one_covers, other_covers):
        one, other = digest(*one), digest(*other)
        assert one.covers(other) is one_covers
        assert other.covers(one) is other_covers
        assert one.in_sync_with(other) is (one_covers and other_covers)


class TestPage23BasicResolution:
    """2.3: the example's two versions are those of N1 (10:23) and N2 (10:25)."""

    def resolve(self, priorities_1, priorities_2):
        return resolve(
            state("N1", 5, stamp=1023),
            state("N2", 7, stamp=1025),
            digest(6, 7, 9, priorities=priorities_1),
            digest(5, 8, 8, priorities=priorities_2),
            same_content=False,
        )

    def test_priorities_differ(self):
        assert self.resolve((1, 2, 3), (1, 2, 3)).source_wins

    def test_priorities_changed_meanwhile(self):
        outcome = self.resolve((1, 2, 3), (3, 2, 3))
        assert outcome.source_wins
        assert outcome.by is Rule.PRIORITY

    def test_priorities_are_equal(self):
        outcome = self.resolve((1, 1, 3), (3, 1, 3))
        assert not outcome.source_wins
        assert outcome.by is Rule.STAMP


class TestPage25Selection:
    def test_from_n1_to_n2(self):
        assert missing_ranges(digest(6, 7, 9), digest(5, 8, 8)) == [
            TickRange(endpoint="N1", start=5, end=6),
            TickRange(endpoint="N3", start=8, end=9),
        ]

    def test_n2_afterwards(self):
        assert ticks(digest(5, 8, 8).merge(digest(6, 7, 9), stamp=1)) == (6, 8, 9)

    def test_from_n2_to_n1(self):
        assert missing_ranges(digest(6, 8, 9), digest(6, 7, 9)) == [TickRange(endpoint="N2", start=7, end=8)]

    def test_both_are_equal_afterwards(self):
        n2 = digest(5, 8, 8).merge(digest(6, 7, 9), stamp=1)
        n1 = digest(6, 7, 9).merge(n2, stamp=1)
        assert n1.in_sync_with(n2)

    def test_ticks_ascend_within_an_endpoint(self):
        held = [
            state("N3", 8),
            state("N1", 5),
            state("N1", 4),
            state("N1", 3),
            state("N2", 6),
            state("N1", 6),
        ]
        chosen = list(select(held, digest(6, 7, 9), digest(4, 8, 8)))
        assert [(s.endpoint, s.tick) for s in chosen] == [("N1", 4), ("N1", 5), ("N3", 8)]

    def test_a_target_that_names_nobody_lacks_everything(self):
        assert missing_ranges(digest(6, 7, 9), Digest()) == [
            TickRange(endpoint="N1", start=0, end=6),
            TickRange(endpoint="N2", start=0, end=7),
            TickRange(endpoint="N3", start=0, end=9),
        ]


class TestPage26Conflicts:
    """2.6 a to e, from N1 with digest (6, 7, 9) to N2 with digest (5, 8, 8)."""

    source, target = digest(6, 7, 9), digest(5, 8, 8)

    @pytest.mark.parametrize(
        ("case", "source_state", "target_state", "relation"),
        [
            ("a", state("N1", 5), state("N1", 4), Relation.NEWER),
            ("b", state("N1", 5), state("N2", 6), Relation.NEWER),
            ("c", state("N1", 5), state("N2", 7), Relation.CONCURRENT),
            ("d", state("N1", 5), state("N3", 7), Relation.NEWER),
            ("e", state("N3", 8), state("N2", 7), Relation.CONCURRENT),
        ],
    )
    def test_row(self, case, source_state, target_state, relation):
        assert decide(source_state, target_state, self.source, self.target) is relation

    def test_case_c_is_won_by_n1(self):
        outcome = resolve(state("N1", 5), state("N2", 7), self.source, self.target, same_content=False)
        assert outcome.source_wins
        assert outcome.by is Rule.PRIORITY

    def test_case_e_by_the_priorities_of_the_two_states(self):
        # The page's result column says N1 wins because 1 < 3; by 5.4 the entries that count are those of the
        # states' endpoints, N3 (priority 3) at the source and N2 (priority 2) at the target.
        outcome = resolve(state("N3", 8), state("N2", 7), self.source, self.target, same_content=False)
        assert not outcome.source_wins
        assert outcome.by is Rule.PRIORITY


class TestPage54Decision:
    def test_same_endpoint_and_same_tick_is_known(self):
        assert decide(state("N1", 5), state("N1", 5), digest(6, 7, 9), digest(5, 8, 8)) is Relation.KNOWN

    def test_endpoints_are_compared_whatever_their_case(self):
        assert decide(state("n1", 5), state("N1", 4), Digest(), Digest()) is Relation.NEWER

    def test_a_version_the_target_contains_is_known(self):
        assert decide(state("N1", 4), state("N2", 7), digest(6, 7, 9), digest(5, 8, 8)) is Relation.KNOWN

    def test_containment_is_strict(self):
        # At tick 7 the source has seen ticks below 7 only (corrected in the pages in 2014).
        assert decide(state("N1", 5), state("N2", 7), digest(6, 7, 9), digest(5, 8, 8)) is Relation.CONCURRENT

    def test_an_unknown_resource_is_new(self):
        assert decide(state("N1", 5), None, digest(6, 7, 9), digest(5, 8, 8)) is Relation.UNKNOWN

    def test_a_purged_tombstone_does_not_come_back(self):
        assert decide(state("N2", 5), None, digest(6, 7, 9), digest(5, 8, 8)) is Relation.KNOWN

    def test_an_unnamed_endpoint_has_priority_9(self):
        target = Digest([DigestEntry(endpoint="N2", tick=8, conflict_priority=8)])
        outcome = resolve(state("N1", 5, 2), state("N2", 7, 1), Digest(), target, same_content=False)
        assert not outcome.source_wins
        assert outcome.record

    def test_priorities_outside_1_to_9_are_numbers(self):
        source = digest(6, 7, 9, priorities=(12, 2, 3))
        target = digest(5, 8, 8, priorities=(1, 0, 3))
        outcome = resolve(state("N1", 5), state("N2", 7), source, target, same_content=False)
        assert not outcome.source_wins


class TestConvergenceAdditions:
    def test_a_change_is_stamped_later_than_what_it_replaces(self):
        assert stamp_after(10, 50) == 51
        assert stamp_after(60, 50) == 60
        assert stamp_after(10) == 10
        assert stamp_after(10, 50, 70) == 71

    def test_equal_content_keeps_the_later_state(self):
        outcome = resolve(state("N1", 5, 1), state("N2", 7, 2), digest(6, 7, 9), digest(5, 8, 8), same_content=True)
        assert not outcome.source_wins
        assert not outcome.record
        assert outcome.by is Rule.SAME_CONTENT

    @pytest.mark.parametrize(("source_stamp", "record"), [(1, True), (3, False)])
    def test_priority_over_the_later_stamp_is_recorded(self, source_stamp, record):
        outcome = resolve(
            state("N1", 5, source_stamp),
            state("N2", 7, 2),
            digest(6, 7, 9),
            digest(5, 8, 8),
            same_content=False,
        )
        assert outcome.source_wins
        assert outcome.record is record

    def test_equal_stamps_are_settled_by_the_smaller_url_whatever_its_case(self):
        assert is_later(state("http://a/X", 1, 5), state("http://A/y", 9, 5))
        assert not is_later(state("http://A/y", 9, 5), state("http://a/X", 1, 5))


class TestPage55Digest:
    """5.5, both tables: endpoints sageApp1, sageApp2, sageApp3."""

    def test_first_table(self):
        before = digest(5, 11, 8)
        after_first = before.advance(state("N1", 5), stamp=1)
        assert ticks(after_first) == (6, 11, 8)
        assert ticks(after_first.advance(state("N3", 8), stamp=1)) == (6, 11, 9)

    def test_second_table(self):
        assert ticks(digest(6, 11, 9).merge(digest(6, 10, 10), stamp=1)) == (6, 11, 10)

    def test_the_stamp_is_that_of_the_last_move(self):
        moved = digest(6, 11, 9).merge(digest(6, 10, 10), stamp=7)
        assert moved.entry("N3").stamp == 7
        assert moved.entry("N2").stamp is None

    def test_a_tick_never_goes_down(self):
        assert ticks(digest(5, 11, 8).advance(state("N1", 2), stamp=1)) == (5, 11, 8)

    def test_values_do_not_change(self):
        before = digest(5, 11, 8)
        before.advance(state("N1", 5), stamp=1)
        assert ticks(before) == (5, 11, 8)


class TestPriorities:
    def test_an_endpoint_speaks_for_itself(self):
        source = digest(4, 1, 1, priorities=(7, 7, 7), origin="n1")
        learned = digest(5, 11, 8).with_priorities(source)
        assert [learned.conflict_priority(node) for node in NODES] == [7, 2, 3]

    def test_of_others_whoever_has_seen_more_is_believed(self):
        source = digest(6, 10, 8, priorities=(7, 7, 7), origin="N9")
        learned = digest(5, 11, 8).with_priorities(source)
        assert [learned.conflict_priority(node) for node in NODES] == [7, 2, 7]

    def test_naming_nobody_new(self):
        assert len(Digest().with_priorities(digest(6, 10, 8))) == 0


class TestPage58Seed:
    """5.8: target (6, 11, 10), source (7, 10, 15), one entry (app1, 6)."""

    source, target, entry = digest(7, 10, 15), digest(6, 11, 10), state("N1", 6)

    def test_the_entry_is_contiguous(self):
        assert TickOrder(self.target, contiguous=True).check(self.entry) is None

    def test_the_target_afterwards(self):
        assert ticks(self.target.advance(self.entry, stamp=1)) == (7, 11, 10)


class TestContiguity:
    def check(self, *received: tuple[str, int], target=None, contiguous=True) -> TickError | None:
        order = TickOrder(digest(6, 11, 10) if target is None else target, contiguous=contiguous)
        errors = [order.check(state(*entry)) for entry in received]
        assert not any(errors[:-1])
        return errors[-1]

    def test_a_gap_names_what_was_expected(self):
        error = self.check(("N1", 7))
        assert error == TickError(fault=TickFault.GAP, endpoint="N1", expected=6, received=7)
        assert "expected tick 6 of N1, received 7" in str(error)

    def test_a_gap_between_two_entries(self):
        assert self.check(("N1", 6), ("N1", 8)).expected == 7

    def test_several_endpoints_each_by_itself(self):
        assert self.check(("N1", 6), ("N3", 10), ("N1", 7), ("N3", 11)) is None

    def test_what_is_contained_already_is_no_gap(self):
        assert self.check(("N1", 3), ("N1", 5), ("N1", 6)) is None

    def test_after_contained_ones_the_gap_is_still_seen(self):
        assert self.check(("N1", 3), ("N1", 7)).expected == 6

    @pytest.mark.parametrize("contiguous", [True, False])
    @pytest.mark.parametrize("second", [6, 5])
    def test_a_descending_or_repeated_tick(self, second, contiguous):
        error = self.check(("N1", 6), ("N1", second), contiguous=contiguous)
        assert error == TickError(fault=TickFault.ORDER, endpoint="N1", expected=7, received=second)
        assert "must ascend" in str(error)

    def test_a_catch_up_feed_may_have_gaps(self):
        assert self.check(("N1", 9), contiguous=False) is None

    @pytest.mark.parametrize("first", [0, 1])
    def test_an_unknown_endpoint_begins_at_0_or_1(self, first):
        assert self.check(("N4", first), target=Digest()) is None

    def test_an_unknown_endpoint_does_not_begin_at_2(self):
        assert self.check(("N4", 2), target=Digest()).expected == 1

    def test_a_first_tick_of_0_is_not_contained(self):
        assert not Digest().contains(state("N4", 0))


class TestDigest:
    def test_of_two_entries_for_one_endpoint_the_higher_counts(self):
        both = Digest([DigestEntry(endpoint="N1", tick=5), DigestEntry(endpoint="n1", tick=3)])
        assert len(both) == 1
        assert both.tick("N1") == 5
