"""``manage.py sync_purge``: remove the tombstones that every enabled peer has."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from ...conf import conf
from ...delivery.purge_all import erase_everywhere, forget_conflicts, purge_all
from ...registry import registry
from ...sync.stamp.purge import forget_endpoints


class Command(BaseCommand):
    """Remove tombstones and old conflicts, forget endpoints without versions, or erase one resource."""

    help = (
        "Removes the tombstones that every enabled peer is known to have. Disable or remove a peer that does not come "
        "back: until then no tombstone that it may lack is removed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--older-than", type=int, metavar="DAYS", help="also remove all tombstones older than this")
        parser.add_argument(
            "--endpoints",
            action="store_true",
            help="instead, forget the endpoints of which this node has no version; digest entries for them are ignored "
            "until a version of theirs is received",
        )
        parser.add_argument(
            "--erase",
            nargs=2,
            metavar=("KIND", "UUID"),
            help="instead, erase what is stored of one resource in conflicts, deferred entries, unknown elements and "
            "results, and name the peers that may still have it",
        )
        parser.add_argument("--dry-run", action="store_true", help="count only; change nothing")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Purge every kind, forget endpoints or erase one resource, and print the counts."""
        if options["endpoints"]:
            self._forget_endpoints(options)
        elif options["erase"]:
            self._erase(options)
        else:
            self._purge(options)

    def _purge(self, options: dict[str, Any]) -> None:
        days = options["older_than"]
        if days is not None and days < 1:
            raise CommandError(f"--older-than takes a number of days above 0, received {days}.")
        older_than = None if days is None else timedelta(days=days)
        outcomes = {}
        for kind, purged in purge_all(older_than=older_than, dry_run=options["dry_run"]):
            outcomes[kind] = asdict(purged)
            if not options["json"]:
                self.stdout.write(f"{kind}: {purged.removed} tombstones removed, {purged.kept} kept")
            for name in purged.missed_by:
                self.stderr.write(
                    self.style.WARNING(
                        f"{kind}: {name} may lack some of these deletions and can no longer receive them; "
                        "compare it with sync_verify: it may still have the rows."
                    )
                )
        conflicts = {kind: n for kind, n in forget_conflicts(dry_run=options["dry_run"]).items() if n}
        for kind, count in conflicts.items():
            outcomes[kind]["conflicts"] = count
        if options["json"]:
            self.stdout.write(json.dumps(outcomes, indent=2))
            return
        for kind, count in conflicts.items():
            self.stdout.write(f"{kind}: {count} conflicts older than {conf.keep_conflicts_days} days removed")

    def _erase(self, options: dict[str, Any]) -> None:
        kind_name, text = options["erase"]
        if options["dry_run"] or options["older_than"] is not None:
            raise CommandError("--erase cannot be used with --dry-run or --older-than.")
        kind = registry.of_kind(kind_name)
        if kind is None:
            names = ", ".join(known.name for known in registry)
            raise CommandError(f"There is no kind {kind_name!r} here; there are: {names}.")
        try:
            uuid = UUID(text)
        except ValueError as error:
            raise CommandError(f"Expected a uuid, received {text!r}.") from error
        try:
            erased = erase_everywhere(kind, uuid)
        except LookupError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(asdict(erased), indent=2))
        else:
            self.stdout.write(
                f"{kind.name} {uuid}: erased {erased.conflicts} conflicts, {erased.deferred} deferred entries, "
                f"{erased.unknown} texts of unknown elements, {erased.results} results"
            )
            if erased.has_row:
                self.stdout.write("The row is still here. Delete it in the application; its deletion is sent.")
            for name in erased.kept_by:
                self.stdout.write(f"{name} may still have it")
        if erased.has_row or erased.kept_by:
            raise SystemExit(1)

    def _forget_endpoints(self, options: dict[str, Any]) -> None:
        if options["older_than"] is not None:
            raise CommandError("--older-than applies to tombstones only; it cannot be used with --endpoints.")
        counts = {kind.name: forget_endpoints(kind, dry_run=options["dry_run"]) for kind in registry}
        if options["json"]:
            self.stdout.write(json.dumps(counts, indent=2))
            return
        for kind_name, count in counts.items():
            said = "would be forgotten" if options["dry_run"] else "forgotten"
            self.stdout.write(f"{kind_name}: {count} endpoints {said}")
