"""Find the problems that need an administrator, for ``sync_status --check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ...sync.log.digests import moved

if TYPE_CHECKING:
    from .status import KindStatus, Status, StreamStatus

#: The ages, in seconds, of the oldest undelivered change of a peer without immediate delivery, which is caught up every
#: night: from the first on it is a warning, from the second on critical.
NIGHTLY_SECONDS = (26 * 3600.0, 50 * 3600.0)
#: The number of consecutive failures, without any success before, that is critical.
MANY_FAILURES = 5


class Level(IntEnum):
    """The severity of a problem; the numbers are exit statuses as monitoring systems expect them."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True)
class Problem:
    """A problem that needs an administrator."""

    level: Level
    text: str


@dataclass(frozen=True)
class Health:
    """The problems of this node."""

    problems: tuple[Problem, ...]
    streams: int

    @property
    def level(self) -> Level:
        """The severity of the worst problem."""
        return max((problem.level for problem in self.problems), default=Level.OK)

    @property
    def summary(self) -> str:
        """The worst problem and the number of problems, in one line."""
        if not self.problems:
            return f"{self.streams} streams, no problems"
        worst = [problem.text for problem in self.problems if problem.level == self.level]
        return f"{worst[0]}; {len(self.problems)} problems in all" if len(self.problems) > 1 else worst[0]

    def as_dict(self) -> dict[str, Any]:
        """Return the problems as plain values for JSON."""
        problems = [{"level": problem.level.name, "text": problem.text} for problem in self.problems]
        return {"level": self.level.name, "problems": problems}


def examine(status: Status, *, warning: float, critical: float) -> Health:
    """Return the problems that ``status`` shows, the most severe first.

    ``warning`` and ``critical`` are ages in seconds: a peer with immediate delivery is a problem of that level if it
    lacks a change that is older. ``NIGHTLY_SECONDS`` applies to the other peers.
    """
    problems = [problem for kind in status.kinds for problem in _of_kind(kind, (warning, critical))]
    for clone in status.clones:
        problems.append(Problem(Level.CRITICAL, f"{clone.endpoint}: {clone.note}"))
    for anomaly in status.anomalies:
        problems.append(Problem(Level.WARNING, f"{anomaly.endpoint}: {anomaly.note}"))
    for clock in status.clocks:
        text = f"{clock.endpoint} stamped changes {clock.ahead_seconds:.0f} s ahead of this node's clock"
        problems.append(Problem(Level.WARNING, text))
    for peer in status.strangers:
        problems.append(Problem(Level.CRITICAL, f"{peer} has none of the kinds of this node; its URL may be wrong"))
    problems.sort(key=lambda problem: -problem.level)
    return Health(tuple(problems), sum(len(kind.streams) for kind in status.kinds))


def _of_kind(kind: KindStatus, thresholds: tuple[float, float]) -> Iterator[Problem]:
    if kind.is_behind:
        yield Problem(Level.CRITICAL, f"{kind.kind}: restored from a backup; the lost changes are not recovered yet")
    if kind.former_url:
        yield Problem(Level.CRITICAL, moved(kind.kind, kind.former_url, kind.endpoint))
    if kind.held_back:
        yield Problem(Level.WARNING, f"{kind.kind}: {kind.held_back} changes cannot be sent")
    if kind.deferred:
        yield Problem(Level.WARNING, f"{kind.kind}: {kind.deferred} received entries cannot be applied")
    if kind.undone:
        yield Problem(Level.WARNING, f"{kind.kind}: {kind.undone}")
    if kind.unfilled:
        yield Problem(
            Level.WARNING, f"{kind.kind}: {kind.unfilled} rows lack a reference to a resource that has not arrived"
        )
    for stream in kind.streams:
        yield from _of_stream(kind.kind, stream, thresholds if stream.is_immediate else NIGHTLY_SECONDS)


def _of_stream(kind: str, stream: StreamStatus, thresholds: tuple[float, float]) -> Iterator[Problem]:
    name = f"{kind} to {stream.peer}"
    if stream.held:
        yield Problem(
            Level.WARNING, f"{name}: {len(stream.held)} versions are larger than the peer accepts: {stream.held[0]}"
        )
    if stream.seconds_behind is None:
        if stream.failures:
            level = Level.CRITICAL if stream.failures >= MANY_FAILURES else Level.WARNING
            yield Problem(level, f"{name}: failed {stream.failures} times in a row: {stream.last_error}")
        return
    warning, critical = thresholds
    if stream.seconds_behind > warning:
        level = Level.CRITICAL if stream.seconds_behind > critical else Level.WARNING
        yield Problem(level, f"{name}: {stream.seconds_behind:.0f} s behind: {stream.reason or 'no process delivers'}")
