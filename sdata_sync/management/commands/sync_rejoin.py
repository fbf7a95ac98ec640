"""``manage.py sync_rejoin``: after a restore from a backup, get back what was lost."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from ...delivery.recovery import ask_peers
from ...registry import registry
from ...resources import SyncResource
from ...sync.digests import lock_digest
from ...sync.rejoining import behind, take_higher_tick


class Command(BaseCommand):
    """Does at once what every process does before it numbers its first change."""

    help = (
        "After this node was restored from a backup: asks every enabled peer how far it knows this node, pulls what "
        "was lost, and goes on above the ticks that they have seen. Exits with 0 only if every peer could be asked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--give-up",
            action="store_true",
            help="go on without what no peer gives back; use it when a peer that knew more is gone for good",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, for each kind."""
        outcomes = {resource.kind: ask_peers(resource) for resource in registry}
        if options["give_up"]:
            for resource in registry:
                _give_up(resource)
        if options["json"]:
            self.stdout.write(json.dumps(outcomes, indent=2))
        else:
            for kind, peers in outcomes.items():
                for peer, outcome in peers.items():
                    self.stdout.write(f"{kind}, {peer}: {outcome}")
        good = ("knows no more", "recovered")
        if any(outcome not in good for peers in outcomes.values() for outcome in peers.values()):
            raise SystemExit(1)


def _give_up(resource: SyncResource) -> None:
    with transaction.atomic(using=resource.database):
        stored = lock_digest(resource)
        if behind(resource) is not None:
            take_higher_tick(resource, stored, stored.value, "nobody any more")
