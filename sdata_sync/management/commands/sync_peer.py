"""``manage.py sync_peer add|list|enable|disable|remove``: manage the peers of this node."""

import json
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ...delivery.probe import probe
from ...models import Peer
from ...registry import registry


class Command(BaseCommand):
    """Add, list, enable, disable and remove peers."""

    help = "Adds, lists, enables, disables and removes the peers that this node synchronises with."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the actions."""
        actions = parser.add_subparsers(dest="action", required=True)
        add = actions.add_parser("add", help="add a peer")
        add.add_argument("url", metavar="dataset-URL", help="http://host/sdata/app/contract/dataset, without a kind")
        add.add_argument("--name", required=True, help="the name of the peer at this node")
        add.add_argument("--credentials", default="", help="the name of an entry of SDATA_SYNC['CREDENTIALS']")
        add.add_argument("--user", default="", help="the name of the user as which the peer logs in at this node")
        add.add_argument("--no-immediate", action="store_true", help="do not push at once; only catch up")
        add.add_argument("--relay", action="store_true", help="push the changes of other nodes too")
        add.add_argument(
            "--partial", action="store_true", help="the peer may give this node a part of the rows of a kind only"
        )
        add.add_argument("--disabled", action="store_true", help="exchange nothing yet: link existing rows first")
        add.add_argument("--offline", action="store_true", help="do not ask the peer whether it can be reached")
        listing = actions.add_parser("list", help="list the peers")
        enable = actions.add_parser("enable", help="exchange changes with a peer from now on")
        disable = actions.add_parser("disable", help="exchange nothing with a peer until it is enabled again")
        remove = actions.add_parser("remove", help="remove a peer")
        for action in (enable, disable, remove):
            action.add_argument("name")
        for action in (add, listing, enable, disable, remove):
            action.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Carry out the action and print its outcome."""
        act = {
            "add": self._add,
            "list": self._list,
            "enable": self._switch,
            "disable": self._switch,
            "remove": self._remove,
        }[options["action"]]
        answer, text = act(options)
        self.stdout.write(json.dumps(answer, indent=2) if options["json"] else text)
        if isinstance(answer, dict) and answer.get("problems"):
            raise SystemExit(1)

    def _add(self, options: dict[str, Any]) -> tuple[Any, str]:
        peer = Peer(
            name=options["name"],
            url=options["url"],
            credentials=options["credentials"],
            immediate=not options["no_immediate"],
            relay=options["relay"],
            user=_user(options["user"]),
            filters_us=options["partial"],
            enabled=not options["disabled"],
        )
        try:
            peer.full_clean()
        except ValidationError as error:
            said = "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
            raise CommandError(f"The peer was not added. {said}") from error
        peer.save()
        text = f"Added {peer.name}, {peer.url}."
        if options["offline"]:
            return _described(peer), text
        found = probe(peer, registry)
        lines = [text, *found.problems, *found.differences]
        if found.shared:
            lines.append(f"Shared with {peer}: {', '.join(found.shared)}.")
        if found.not_shared:
            lines.append(f"Not shared with {peer}, which does not have them: {', '.join(found.not_shared)}.")
        return {**_described(peer), **found.as_dict()}, "\n".join(lines)

    def _list(self, options: dict[str, Any]) -> tuple[Any, str]:
        peers = list(Peer.objects.all())
        lines = [
            f"{peer.name}  {peer.url}  {'immediate' if peer.immediate else 'catch-up only'}"
            f"{'  relay' if peer.relay else ''}{'' if peer.enabled else '  disabled'}"
            for peer in peers
        ]
        return [_described(peer) for peer in peers], "\n".join(lines) or "There are no peers."

    def _switch(self, options: dict[str, Any]) -> tuple[Any, str]:
        peer = _peer(options["name"])
        peer.enabled = options["action"] == "enable"
        peer.save(update_fields=["enabled"])
        return _described(peer), f"{peer.name} is {options['action']}d."

    def _remove(self, options: dict[str, Any]) -> tuple[Any, str]:
        peer = _peer(options["name"])
        described = _described(peer)
        peer.delete()
        return described, f"Removed {described['name']}, {described['url']}."


def _peer(name: str) -> Peer:
    peer = Peer.objects.filter(name=name).first()
    if peer is None:
        known = ", ".join(Peer.objects.values_list("name", flat=True)) or "none"
        raise CommandError(f"There is no peer called {name!r}; there are: {known}.")
    return peer


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
