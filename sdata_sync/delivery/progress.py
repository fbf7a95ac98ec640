"""Watching a run: how many entries there are, and what becomes of them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field


@dataclass(kw_only=True)
class Progress:
    """Counts what passes in one direction of one kind; a progress bar is made of it by overriding ``changed``.

    ``total`` is ``None`` until it is known. ``entries`` passed so far; of these ``conflicts`` lost against the
    target's version and ``deferred`` wait there until they can be applied.
    """

    total: int | None = None
    entries: int = 0
    conflicts: int = 0
    deferred: int = 0
    others: int = field(default=0)

    def set_total(self, total: int | None) -> None:
        """Note how many entries are to come, if the source says so."""
        self.total = self.entries + total if total is not None else None
        self.changed()

    def count(self, entries: int, exceptional: Iterable[int]) -> None:
        """Note a page of ``entries``; ``exceptional`` are the HTTP statuses of those that were not simply taken."""
        self.entries += entries
        for status in exceptional:
            if status == 409:
                self.conflicts += 1
            elif status == 202:
                self.deferred += 1
            else:
                self.others += 1
        self.changed()

    def changed(self) -> None:
        """Do what is to be done when a number has changed."""

    def as_dict(self) -> dict[str, int]:
        """Return the numbers, for JSON."""
        numbers = asdict(self)
        numbers.pop("total")
        return numbers
