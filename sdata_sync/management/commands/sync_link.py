"""``manage.py sync_link``: find rows of two nodes that represent the same thing, and link them."""

from __future__ import annotations

import csv
import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...core.text import one_line
from ...delivery.client import PeerClient
from ...delivery.match import Candidate, Certainty, Linked, find_candidates, link_pairs
from ...exceptions import PeerError
from ...models import Peer
from ...registry import registry

if TYPE_CHECKING:
    from ...kind import Kind

_COLUMNS = ("link", "certainty", "score", "local_key", "uuid", "local", "remote")
#: The greatest number of candidates that are printed; a file contains all of them.
SHOWN = 50


class Command(BaseCommand):
    """Match rows of two nodes, list the candidates, and link the approved ones."""

    help = (
        "Matches this node's rows of one kind with a peer's, on the fields that match_on of the resource names. Prints "
        "the candidates, or writes them to a file for review. Links the certain pairs, or the pairs that have 'yes' in "
        "the file. Run it before the peer is enabled: rows that are not linked are exchanged as separate resources."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--peer", required=True, help="the peer (its name); it need not be enabled")
        parser.add_argument("--kind", required=True, help="the kind whose rows are matched")
        parser.add_argument("--csv", metavar="FILE", help="write the candidates to this file, for review")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--apply", metavar="FILE", help="link the pairs of a reviewed file with 'yes' in 'link'")
        how.add_argument("--certain", action="store_true", help="link the certain pairs")
        how.add_argument("--likely", action="store_true", help="link the certain and the likely pairs")
        parser.add_argument("--wins", choices=["here", "there"], help="whose content linked rows keep")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Find the candidates, link the chosen pairs, and print both; exit with 1 if a pair was refused."""
        peer, kind = _peer(options["peer"]), _kind(options["kind"])
        links = options["apply"] or options["certain"] or options["likely"]
        if links and not options["wins"]:
            raise CommandError("Expected --wins here or --wins there: whose content linked rows keep.")
        candidates = [] if options["apply"] else self._candidates(peer, kind)
        if options["csv"]:
            write_candidates(Path(options["csv"]), candidates)
        outcome = None
        if links:
            pairs = (
                read_pairs(Path(options["apply"]))
                if options["apply"]
                else _chosen(candidates, likely=options["likely"])
            )
            outcome = link_pairs(kind, peer, pairs, ours_win=options["wins"] == "here")
        self._print(candidates, outcome, options)
        if outcome is not None and outcome.refused:
            raise SystemExit(1)

    def _candidates(self, peer: Peer, kind: Kind) -> list[Candidate]:
        try:
            with PeerClient.for_peer(peer) as client:
                return find_candidates(client, peer, kind)
        except (PeerError, ValueError) as error:
            raise CommandError(str(error)) from error

    def _print(self, candidates: list[Candidate], outcome: Linked | None, options: dict[str, Any]) -> None:
        counts = Counter(candidate.certainty for candidate in candidates)
        if options["json"]:
            said: dict[str, Any] = {str(sort): counts[sort] for sort in Certainty}
            said["candidates"] = [candidate.as_dict() for candidate in candidates]
            if outcome is not None:
                said.update(linked=outcome.linked, refused=outcome.refused)
            self.stdout.write(json.dumps(said, indent=2))
            return
        if not options["apply"]:
            self._show(candidates)
            self.stdout.write(", ".join(f"{counts[sort]} {sort}" for sort in Certainty))
        if outcome is not None:
            self.stdout.write(f"{outcome.linked} pairs linked. They are in sync after the next sync_catchup.")
            for text in outcome.refused:
                self.stderr.write(self.style.ERROR(text))

    def _show(self, candidates: list[Candidate]) -> None:
        table = Table("", "score", "here", "content here", "content there")
        # The least certain candidates are printed first, because they need a review.
        for candidate in candidates[::-1][:SHOWN]:
            table.add_row(
                str(candidate.certainty),
                f"{candidate.score:.2f}",
                *(_shown(text) for text in (candidate.local_key, candidate.local, candidate.remote)),
            )
        if candidates:
            width = None if self.stdout.isatty() else 160
            Console(file=self.stdout, width=width, highlight=False).print(table)  # type: ignore[arg-type]
        if len(candidates) > SHOWN:
            self.stdout.write(f"... and {len(candidates) - SHOWN} more; --csv FILE writes all of them.")


def _peer(name: str) -> Peer:
    peer = Peer.objects.filter(name=name).first()
    if peer is None:
        raise CommandError(f"There is no peer called {name!r}.")
    return peer


def _kind(kind_name: str) -> Kind:
    kind = registry.of_kind(kind_name)
    if kind is None:
        raise CommandError(f"There is no kind {kind_name!r} here.")
    return kind


def _chosen(candidates: Iterable[Candidate], *, likely: bool) -> list[tuple[str, UUID]]:
    wanted = (Certainty.CERTAIN, Certainty.LIKELY) if likely else (Certainty.CERTAIN,)
    return [(c.local_key, c.uuid) for c in candidates if c.certainty in wanted]


def _shown(text: str) -> Text:
    """Return ``text`` for a terminal: on one line, and without markup."""
    return Text(one_line(text))


#: A spreadsheet takes a cell that begins with one of these for a formula. A quote marks a text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _from_cell(text: str) -> str:
    return text[1:] if text.startswith("'") else text


def write_candidates(path: Path, candidates: Iterable[Candidate]) -> None:
    """Write ``candidates`` to a CSV file, for review in a spreadsheet."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for candidate in candidates:
            said = "yes" if candidate.certainty is Certainty.CERTAIN else "no"
            writer.writerow({"link": said, **{name: _cell(value) for name, value in candidate.as_dict().items()}})


def read_pairs(path: Path) -> list[tuple[str, UUID]]:
    """Return the local key and the uuid of each row of a CSV file that says that it is to be linked.

    Raises:
        CommandError: the file cannot be read, or a row has no key or no uuid.
    """
    pairs = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                if (row.get("link") or "").strip().lower() in ("yes", "y", "1", "true"):
                    pairs.append(_pair(row, path, number))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    return pairs


def _pair(row: dict[str, Any], path: Path, number: int) -> tuple[str, UUID]:
    try:
        return _from_cell(str(row["local_key"])), UUID(row["uuid"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CommandError(f"{path}, line {number}: expected a local_key and a uuid.") from error
