"""``manage.py sync_verify``: compare the content of this node with that of its peers."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ...delivery.audit import Comparison, verify
from ...delivery.client import PeerClient
from ...delivery.lease import ensure_stream, was_shared
from ...delivery.probe import has_no_kind
from ...delivery.session import undone_errands
from ...exceptions import KindNotShared, PeerError
from ...kind import Kind
from ...models import Peer
from ..choose import chosen_kinds, chosen_peers


class Command(BaseCommand):
    """Compare the digests, then the content of every row."""

    help = (
        "Compares this node with its peers: digests first, then every resource. Exits with 0 only if digests and rows "
        "are equal and nothing is deferred."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--peer", action="append", help="only this peer (its name); may be repeated")
        parser.add_argument("--kind", action="append", help="only this kind; may be repeated")
        parser.add_argument("--repair", action="store_true", help="resend this node's version where contents differ")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Compare with each peer and print the outcomes; exit with 1 if something differs or a peer cannot be asked."""
        peers, kinds = chosen_peers(options["peer"]), chosen_kinds(options["kind"])
        found: list[Comparison] = []
        not_shared: list[tuple[Peer, Kind]] = []
        failed = False
        for peer in peers:
            try:
                with PeerClient.for_peer(peer) as client:
                    for kind in kinds:
                        comparison = _compare(client, peer, kind, repair=options["repair"])
                        if comparison is None:
                            not_shared.append((peer, kind))
                        else:
                            found.append(comparison)
            except PeerError as error:
                failed = True
                self.stderr.write(self.style.ERROR(f"{peer}: {error}"))
        if not_shared and not found and not failed:
            failed = True
            self.stderr.write(self.style.ERROR(has_no_kind(not_shared[0][0])))
        self._print(found, not_shared, as_json=options["json"])
        if failed or not all(comparison.is_equal for comparison in found):
            raise SystemExit(1)

    def _print(self, found: list[Comparison], not_shared: list[tuple[Peer, Kind]], *, as_json: bool) -> None:
        if as_json:
            absent = [{"peer": peer.name, "kind": kind.name, "shared": False} for peer, kind in not_shared]
            self.stdout.write(json.dumps([*(comparison.as_dict() for comparison in found), *absent], indent=2))
            return
        for comparison in found:
            self.stdout.write(_line(comparison))
        for peer, kind in not_shared:
            self.stdout.write(f"{peer}, {kind.name}: not shared with {peer}")


def _compare(client: PeerClient, peer: Peer, kind: Kind, *, repair: bool) -> Comparison | None:
    """Return the comparison of ``kind``, ``None`` if the peer has never had it."""
    try:
        comparison = verify(client, peer, kind, repair=repair)
    except KindNotShared:
        if was_shared(ensure_stream(peer, kind.name)):
            raise
        return None
    comparison.undone = undone_errands(kind.name)
    return comparison


def _line(comparison: Comparison) -> str:
    digests = "equal digests" if comparison.digests_agree else "digests differ: at least one node lacks changes"
    text = f"{comparison.peer}, {comparison.kind}: {digests}; {comparison.compared} compared"
    for what, count in comparison.counts.items():
        if count:
            named = comparison.examples.get(what, [])[:3]
            text += f"; {count} {what.replace('_', ' ')}" + (f" ({', '.join(named)} …)" if named else "")
    if comparison.columns:
        text += f"; differing columns: {', '.join(sorted(comparison.columns))}"
    if comparison.undone:
        text += f"; {comparison.undone}"
    if comparison.is_equal:
        text += "; equal"
    return text + (f"; {comparison.repaired} are sent again" if comparison.repaired else "")
