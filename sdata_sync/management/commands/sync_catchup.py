"""``manage.py sync_catchup``: pull and push all missing changes."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table

from ...conf import conf
from ...delivery.catchup import Passed, bridge, catch_up
from ...delivery.client import PeerClient
from ...delivery.progress import Progress
from ...models import Peer
from ...registry import registry
from ...sync.port import holding_wakes
from ...sync.stamp.scan import scan
from ..choose import chosen_kinds, chosen_peers


class Command(BaseCommand):
    """Synchronise the enabled peers with this node, or two endpoints of other nodes with each other."""

    help = (
        "Transfers all missing changes of all kinds with every enabled peer: first pulls the changes that this node "
        "lacks, then pushes the changes that the peer lacks. Exits with 0 only if all of them arrived and none waits."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--peer", action="append", help="only this peer (its name); may be repeated")
        parser.add_argument("--kind", action="append", help="only this kind; may be repeated")
        parser.add_argument("--push", action="store_true", help="only push the changes that the peers lack")
        parser.add_argument("--pull", action="store_true", help="only pull the changes that this node lacks")
        parser.add_argument("--scan", action="store_true", help="first find changes that sent no signals")
        parser.add_argument("--source", help="dataset URL to read changes from; with --target")
        parser.add_argument("--target", help="dataset URL to write changes to; with --source")
        parser.add_argument("--source-credentials", default="", help="a name in CREDENTIALS (default: the peer's)")
        parser.add_argument("--target-credentials", default="", help="a name in CREDENTIALS (default: the peer's)")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Catch up and print the outcomes; exit with 1 if one of them has an error."""
        if bool(options["source"]) != bool(options["target"]):
            raise CommandError("Expected both --source and --target, or neither of them.")
        quiet = options["json"] or not self.stdout.isatty()
        with holding_wakes(), _Bars(quiet=quiet) as bars:
            passed = list(self._bridge(options, bars) if options["source"] else self._catch_up(options, bars))
        if options["json"]:
            self.stdout.write(json.dumps([item.as_dict() for item in passed], indent=2))
        else:
            self._print(passed)
        if not all(item.is_in_sync for item in passed):
            raise SystemExit(1)

    def _catch_up(self, options: dict[str, Any], bars: _Bars) -> Iterator[Passed]:
        peers, kinds = chosen_peers(options["peer"]), chosen_kinds(options["kind"])
        if options["scan"]:
            for kind in kinds:
                scan(kind)
        directions = [name for name in ("pull", "push") if options[name]] or ["pull", "push"]
        yield from catch_up(peers, kinds, directions=directions, make_progress=bars.progress_of)

    def _bridge(self, options: dict[str, Any], bars: _Bars) -> Iterator[Passed]:
        with closing(_client(options, "source")) as source, closing(_client(options, "target")) as target:
            # Kinds that are not registered here are allowed, because neither endpoint is this node's.
            for kind_name in options["kind"] or [kind.name for kind in registry]:
                yield bridge(source, target, kind_name, bars.progress_of(source.url, kind_name, "bridge"))

    def _print(self, passed: list[Passed]) -> None:
        table = Table("peer", "kind", "direction")
        for heading in ("entries", "conflicts", "deferred", "refused", "seconds"):
            table.add_column(heading, justify="right")
        table.add_column("outcome", overflow="fold")
        for item in passed:
            progress = item.progress
            numbers = (progress.entries, progress.conflicts, progress.deferred, progress.others, f"{item.seconds:.2f}")
            table.add_row(item.peer, item.kind, item.direction, *map(str, numbers), item.outcome)
        width = None if self.stdout.isatty() else 160
        Console(file=self.stdout, width=width, highlight=False).print(table)  # type: ignore[arg-type]


def _client(options: dict[str, Any], end: str) -> PeerClient:
    url = options[end].strip().rstrip("/")
    name = options[f"{end}_credentials"]
    if not name:
        peer = Peer.objects.filter(url__iexact=url).first()
        name = peer.credentials if peer else ""
    try:
        return PeerClient(url, conf.credentials(name))
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error


class _Bars:
    """Show a progress bar for each kind and direction, if the output is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
        )
        self._progress = ProgressBars(*columns, console=Console(stderr=True), disable=quiet)

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._progress.stop()

    def progress_of(self, peer: str, kind: str, direction: str) -> Progress:
        """Return a ``Progress`` that counts entries and updates a progress bar."""
        task = self._progress.add_task(f"{peer} {kind} {direction}", total=None, rate="")
        progress = self._progress

        class Bar(Progress):
            def changed(self) -> None:
                elapsed = progress.tasks[task].elapsed or 0
                rate = f"{self.entries / elapsed:.0f}/s" if elapsed else ""
                progress.update(task, completed=self.entries, total=self.total, rate=rate)

        return Bar()
