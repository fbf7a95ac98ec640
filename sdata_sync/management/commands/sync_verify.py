"""``manage.py sync_verify``: compare the content of this node with that of its peers."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...delivery.audit import Comparison, verify
from ...delivery.client import PeerClient
from ...exceptions import PeerError
from ...models import Peer
from ...registry import registry


class Command(BaseCommand):
    """Compare the digests, then the content of every row."""

    help = "Compares this node with its peers: digests first, then every resource. Exits with 0 if nothing differs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--peer", action="append", help="only this peer (its name); may be repeated")
        parser.add_argument("--kind", action="append", help="only this kind; may be repeated")
        parser.add_argument("--repair", action="store_true", help="resend this node's version where contents differ")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Compare with each peer and print the outcomes; exit with 1 if a row differs or a peer cannot be asked."""
        peers = Peer.objects.filter(enabled=True)
        if options["peer"]:
            peers = peers.filter(name__in=options["peer"])
        if not peers:
            raise CommandError("There is no such enabled peer. manage.py sync_peer list prints the peers.")
        found: list[Comparison] = []
        failed = False
        for peer in peers:
            try:
                with PeerClient.for_peer(peer) as client:
                    for kind in registry:
                        if not options["kind"] or kind.name in options["kind"]:
                            found.append(verify(client, peer, kind, repair=options["repair"]))
            except PeerError as error:
                failed = True
                self.stderr.write(self.style.ERROR(f"{peer}: {error}"))
        if options["json"]:
            self.stdout.write(json.dumps([comparison.as_dict() for comparison in found], indent=2))
        else:
            for comparison in found:
                self.stdout.write(_line(comparison))
        if failed or not all(comparison.is_equal for comparison in found):
            raise SystemExit(1)


def _line(comparison: Comparison) -> str:
    digests = "equal digests" if comparison.digests_agree else "digests differ: at least one node lacks changes"
    text = f"{comparison.peer}, {comparison.kind}: {digests}; {comparison.compared} compared"
    for what, count in comparison.counts.items():
        if count:
            text += f"; {count} {what.replace('_', ' ')} ({', '.join(comparison.examples[what][:3])} …)"
    if comparison.is_equal:
        text += "; equal"
    return text + (f"; {comparison.repaired} are sent again" if comparison.repaired else "")
