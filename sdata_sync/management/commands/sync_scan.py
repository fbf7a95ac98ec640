"""``manage.py sync_scan``: find changes that sent no signals."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...registry import registry
from ...sync.stamp.scan import Found, scan


class Command(BaseCommand):
    """Compare every row with its TrackedResource."""

    help = (
        "Finds rows that were written, changed or deleted without signals (raw SQL, update(), a restored table) and "
        "assigns ticks to them as changes of this node. Exits with 0 only if every row could be read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--kind", action="append", help="only this kind; may be repeated")
        parser.add_argument("--dry-run", action="store_true", help="count only; change nothing")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Scan the kinds and print the counts; exit with 1 if a row cannot be read."""
        kinds = options["kind"] or [kind.name for kind in registry]
        resources = [registry.of_kind(kind_name) for kind_name in kinds]
        if None in resources:
            raise CommandError(f"There is no kind {kinds[resources.index(None)]!r} here.")
        found: dict[str, Found] = {}
        for kind in resources:
            assert kind is not None
            found[kind.name] = scan(kind, dry_run=options["dry_run"])
        if options["json"]:
            self.stdout.write(
                json.dumps({kind_name: result.as_dict() for kind_name, result in found.items()}, indent=2)
            )
        else:
            self._print(found, is_dry_run=options["dry_run"])
        if any(result.unreadable for result in found.values()):
            raise SystemExit(1)

    def _print(self, found: dict[str, Found], *, is_dry_run: bool) -> None:
        for kind, result in found.items():
            self.stdout.write(
                f"{kind}: {result.looked_at} tracked rows compared; {result.new} new, {result.changed} changed, "
                f"{result.deleted} deleted without signals"
                f"{f'; {result.unreadable} cannot be read and are held back' if result.unreadable else ''}"
                f"{' (dry run: nothing was changed)' if is_dry_run else ''}"
            )
