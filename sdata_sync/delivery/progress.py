"""Count the entries of a run and their outcomes."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field


@dataclass(kw_only=True)
class Progress:
    """Counts the entries of one direction of one kind; a progress bar overrides ``changed``.

    Attributes:
        total: the number of entries of the run, ``None`` until it is known.
        entries: the entries so far.
        conflicts: entries that lost a conflict at the target.
        deferred: entries that the target keeps as deferred entries.
        others: entries with another exceptional status.
    """

    total: int | None = None
    entries: int = 0
    conflicts: int = 0
    deferred: int = 0
    others: int = field(default=0)

    def set_total(self, total: int | None) -> None:
        """Set the number of entries that follow; ``None`` if the source does not state it."""
        self.total = self.entries + total if total is not None else None
        self.changed()

    def count(self, entries: int, exceptional: Iterable[int]) -> None:
        """Count a page of ``entries``; ``exceptional`` are the HTTP statuses other than 200."""
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
        """Do nothing; a subclass shows the numbers."""

    def as_dict(self) -> dict[str, int]:
        """Return the numbers for JSON."""
        numbers = asdict(self)
        numbers.pop("total")
        return numbers
