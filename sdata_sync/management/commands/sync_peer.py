"""``manage.py sync_peer add|list|remove``: the applications that this one keeps level with."""

import json
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ...models import Peer


class Command(BaseCommand):
    """Adds, lists and removes peers."""

    help = "Adds, lists and removes the applications that this one keeps level with."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the three actions."""
        actions = parser.add_subparsers(dest="action", required=True)
        add = actions.add_parser("add", help="add a peer")
        add.add_argument("url", metavar="dataset-URL", help="http://host/sdata/app/contract/dataset, without a kind")
        add.add_argument("--name", required=True, help="what to call it here")
        add.add_argument("--credentials", default="", help="the name of an entry of SDATA_SYNC['CREDENTIALS']")
        add.add_argument("--user", default="", help="whom it logs in as here (its user name)")
        add.add_argument("--no-immediate", action="store_true", help="do not push at once; only catch up")
        add.add_argument("--relay", action="store_true", help="push also what came from others")
        listing = actions.add_parser("list", help="list the peers")
        remove = actions.add_parser("remove", help="remove a peer")
        remove.add_argument("name")
        for action in (add, listing, remove):
            action.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what was asked for."""
        action = {"add": self._add, "list": self._list, "remove": self._remove}[options["action"]]
        answer, text = action(options)
        self.stdout.write(json.dumps(answer, indent=2) if options["json"] else text)

    def _add(self, options: dict[str, Any]) -> tuple[Any, str]:
        peer = Peer(
            name=options["name"],
            url=options["url"],
            credentials=options["credentials"],
            immediate=not options["no_immediate"],
            relay=options["relay"],
            user=_user(options["user"]),
        )
        try:
            peer.full_clean()
        except ValidationError as error:
            said = "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
            raise CommandError(f"The peer was not added. {said}") from error
        peer.save()
        return _described(peer), f"Added {peer.name}, {peer.url}."

    def _list(self, options: dict[str, Any]) -> tuple[Any, str]:
        peers = list(Peer.objects.all())
        lines = [
            f"{peer.name}  {peer.url}  {'immediate' if peer.immediate else 'catch-up only'}"
            f"{'  relay' if peer.relay else ''}{'' if peer.enabled else '  disabled'}"
            for peer in peers
        ]
        return [_described(peer) for peer in peers], "\n".join(lines) or "There are no peers."

    def _remove(self, options: dict[str, Any]) -> tuple[Any, str]:
        peer = Peer.objects.filter(name=options["name"]).first()
        if peer is None:
            known = ", ".join(Peer.objects.values_list("name", flat=True)) or "none"
            raise CommandError(f"There is no peer called {options['name']!r}; there are: {known}.")
        described = _described(peer)
        peer.delete()
        return described, f"Removed {described['name']}, {described['url']}."


def _user(name: str) -> Any:
    if not name:
        return None
    model = get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist as error:
        raise CommandError(f"There is no user called {name!r}.") from error


def _described(peer: Peer) -> dict[str, Any]:
    names = ("name", "url", "credentials", "immediate", "relay", "enabled")
    return {**{name: getattr(peer, name) for name in names}, "user": str(peer.user) if peer.user else ""}
