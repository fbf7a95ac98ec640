"""Nodes that hold a collection in memory and speak the protocol through ``sdata_sync.core`` alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sdata_sync.core.decision import Relation, decide, resolve
from sdata_sync.core.digest import Digest, DigestEntry
from sdata_sync.core.order import TickOrder
from sdata_sync.core.ranges import select
from sdata_sync.core.state import SyncState, stamp_after

DELETED = None


@dataclass(frozen=True)
class Version:
    content: str | None
    state: SyncState


@dataclass(frozen=True)
class Page:
    """A page of a feed: what would be on the wire."""

    entries: tuple[tuple[str, Version], ...]
    digest: Digest
    immediate: bool
    is_last: bool


class Refused(Exception):
    """The target answered 400."""


class Node:
    """One application; ``literal`` follows the pages to the letter, without the convergence additions."""

    def __init__(self, name: str, priority: int, skew: int = 0, *, literal: bool = False) -> None:
        self.endpoint = f"http://{name}/things"
        self.skew = skew
        self.literal = literal
        self.held: dict[str, Version] = {}
        own = DigestEntry(endpoint=self.endpoint, tick=1, conflict_priority=priority)
        self.digest = Digest([own], origin=self.endpoint)

    def write(self, uuid: str, content: str | None, now: int) -> None:
        """Edit, create or delete as a user would."""
        held = self.held.get(uuid)
        if held is None and content is DELETED:
            return
        replaced = [held.state.stamp] if held and not self.literal else []
        self._record(uuid, content, stamp_after(now + self.skew, *replaced))

    def _record(self, uuid: str, content: str | None, stamp: int) -> None:
        state = SyncState(endpoint=self.endpoint, tick=self.digest.tick(self.endpoint), stamp=stamp)
        self.held[uuid] = Version(content, state)
        self.digest = self.digest.advance(state, stamp=stamp)

    def pages(self, known: Digest, size: int, *, immediate: bool) -> Iterator[Page]:
        """Select what ``known`` lacks; every page is of the moment at which this was called."""
        by_state = {(v.state.endpoint, v.state.tick): (uuid, v) for uuid, v in self.held.items()}
        states = select((v.state for v in self.held.values()), self.digest, known)
        chosen = [by_state[state.endpoint, state.tick] for state in states]
        starts = list(range(0, len(chosen), size)) or [0]
        for start in starts:
            entries = tuple(chosen[start : start + size])
            yield Page(entries, self.digest, immediate, is_last=start == starts[-1])

    def apply(self, page: Page) -> None:
        """Apply a page whole, or refuse it whole."""
        order = TickOrder(self.digest, contiguous=page.immediate)
        for _, version in page.entries:
            if (error := order.check(version.state)) is not None:
                raise Refused(str(error))
        for uuid, version in page.entries:
            self._apply_entry(uuid, version, page.digest)
            self.digest = self.digest.advance(version.state, stamp=0)
        if page.is_last and not page.immediate:
            self.digest = self.digest.merge(page.digest, stamp=0)
        self.digest = self.digest.with_priorities(page.digest)

    def _apply_entry(self, uuid: str, received: Version, source: Digest) -> None:
        held = self.held.get(uuid)
        relation = decide(received.state, held and held.state, source, self.digest)
        if relation in (Relation.UNKNOWN, Relation.NEWER):
            self.held[uuid] = received
        elif relation is Relation.CONCURRENT:
            same_content = not self.literal and received.content == held.content
            outcome = resolve(received.state, held.state, source, self.digest, same_content=same_content)
            winner = received if outcome.source_wins else held
            self.held[uuid] = winner
            if outcome.record and not self.literal:
                self._record(uuid, winner.content, stamp_after(0, received.state.stamp, held.state.stamp))

    def contents(self) -> dict[str, str | None]:
        """What a user sees: deleted resources are not there."""
        return {uuid: v.content for uuid, v in self.held.items() if v.content is not DELETED}

    def prioritized(self, priority: int) -> None:
        own = self.digest.entry(self.endpoint)
        self.digest = self.digest.with_entry(replace(own, conflict_priority=priority))


def push_immediate(source: Node, target: Node, known: Digest, size: int, *, fail_after: int | None = None) -> None:
    """Push what ``known`` lacks page by page; a gap leads to a catch-up, as in the delivery."""
    try:
        for number, page in enumerate(source.pages(known, size, immediate=True)):
            if fail_after is not None and number >= fail_after:
                return
            target.apply(page)
    except Refused:
        catch_up(source, target, size)


def catch_up(source: Node, target: Node, size: int, *, fail_after: int | None = None) -> None:
    """One catch-up pass in one direction, cut off after ``fail_after`` pages."""
    for number, page in enumerate(source.pages(target.digest, size, immediate=False)):
        if fail_after is not None and number >= fail_after:
            return
        target.apply(page)


def talk_until_quiet(nodes: list[Node], size: int = 3, rounds: int = 12) -> None:
    """Let everybody catch up with everybody until a round changes nothing."""
    for _ in range(rounds):
        before = [(node.digest, dict(node.held)) for node in nodes]
        for source in nodes:
            for target in nodes:
                if source is not target:
                    catch_up(source, target, size)
        if all(
            digest.in_sync_with(node.digest) and held == node.held
            for node, (digest, held) in zip(nodes, before, strict=True)
        ):
            return
    raise AssertionError("the nodes do not come to rest")
