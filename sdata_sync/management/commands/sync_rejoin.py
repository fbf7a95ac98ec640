"""``manage.py sync_rejoin``: recover lost changes after a restore from a backup."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from ...delivery.recover import ask_peers, confirm_with, lower_above_peers
from ...exceptions import PeerError
from ...models import Digest, Peer
from ...registry import registry
from ...sync.log.digests import load_digest, lock_digest
from ...sync.stamp.restore_gap import restore_gap, take_higher_tick
from ...turns import write_transaction

if TYPE_CHECKING:
    from ...kind import Kind


class Command(BaseCommand):
    """Run the restore check that every process runs before it assigns its first tick."""

    help = (
        "After this node was restored from a backup: reads the digest of every enabled peer, pulls the lost changes, "
        "and continues above the highest tick that a peer has of this node. Exits with 0 only if every peer could be "
        "asked and the lost changes could be pulled."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--give-up",
            action="store_true",
            help="continue without the changes that no peer returns; use it if the peer that had them is gone for good",
        )
        parser.add_argument(
            "--renumber",
            action="store_true",
            help="after a false claim has raised the tick of this node too high: lower it to just above its versions "
            "here and at the peers; then run --confirm at each peer",
        )
        parser.add_argument(
            "--confirm",
            metavar="PEER",
            help="lower this node's digest entry for this peer (its name) to the tick in the peer's own digest, after "
            "the peer has run --renumber",
        )
        parser.add_argument(
            "--moved",
            action="store_true",
            help="this node has got another BASE_URL for good: go on as the endpoint of that URL",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the restore check for each kind, or lower the ticks of this node or of a peer."""
        if sum(bool(options[name]) for name in ("give_up", "renumber", "confirm", "moved")) > 1:
            raise CommandError("--give-up, --renumber, --confirm and --moved exclude each other.")
        if options["moved"]:
            self._move(as_json=options["json"])
        elif options["renumber"]:
            self._lower_own_tick(as_json=options["json"])
        elif options["confirm"]:
            self._confirm(options["confirm"], as_json=options["json"])
        else:
            self._rejoin(options)

    def _move(self, *, as_json: bool) -> None:
        former = {kind.name: load_digest(kind).former_url for kind in registry}
        for kind in registry:
            Digest.objects.using(kind.database).filter(pk=kind.name).update(endpoint_url=kind.endpoint)
        if as_json:
            self.stdout.write(json.dumps(former, indent=2))
            return
        for name, url in former.items():
            self.stdout.write(f"{name}: {f'was {url}' if url else 'unchanged'}")

    def _lower_own_tick(self, *, as_json: bool) -> None:
        said: dict[str, dict[str, Any]] = {}
        is_complete = True
        for kind in registry:
            lowered, peers = lower_above_peers(kind)
            said[kind.name] = {**asdict(lowered), "peers": peers}
            is_complete = is_complete and all(outcome == "asked" for outcome in peers.values())
        self._print(said, as_json=as_json)
        if not is_complete:
            self.stderr.write("A peer that was not asked may have later versions: repeat --renumber when it is back.")
            raise SystemExit(1)

    def _confirm(self, name: str, *, as_json: bool) -> None:
        peer = Peer.objects.filter(name=name, enabled=True).first()
        if peer is None:
            raise CommandError(f"There is no enabled peer {name!r} here.")
        try:
            self._print({r.name: asdict(confirm_with(peer, r)) for r in registry}, as_json=as_json)
        except PeerError as error:
            raise CommandError(f"{name}: {error}") from error

    def _print(self, said: dict[str, dict[str, Any]], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(said, indent=2))
            return
        for kind, facts in said.items():
            change = f"lowered from {facts['before']}" if facts["after"] < facts["before"] else "unchanged"
            self.stdout.write(f"{kind}: tick {facts['after']}, {change}")
            for peer, outcome in facts.get("peers", {}).items():
                self.stdout.write(f"  {peer}: {outcome}")

    def _rejoin(self, options: dict[str, Any]) -> None:
        outcomes = {kind.name: ask_peers(kind) for kind in registry}
        if options["give_up"]:
            for kind in registry:
                _give_up(kind)
        if options["json"]:
            self.stdout.write(json.dumps(outcomes, indent=2))
        else:
            for kind_name, peers in outcomes.items():
                for peer, outcome in peers.items():
                    self.stdout.write(f"{kind_name}, {peer}: {outcome}")
        good = ("knows no more", "recovered")
        if any(outcome not in good for peers in outcomes.values() for outcome in peers.values()):
            raise SystemExit(1)


def _give_up(kind: Kind) -> None:
    with write_transaction(kind.database):
        stored = lock_digest(kind)
        if restore_gap(kind) is not None:
            take_higher_tick(kind, stored, stored.value, "sync_rejoin --give-up")
