"""``manage.py sync_deliver``: deliver from a separate process, once or until it is interrupted."""

import json
import signal
from argparse import ArgumentParser
from queue import SimpleQueue
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...conf import conf
from ...delivery.backends.worker import Worker
from ...delivery.monitoring.status import collect_status
from ...delivery.session import PeerSession
from ...models import Peer
from ...registry import registry


class Command(BaseCommand):
    """Deliver to the enabled immediate peers until they are in sync."""

    help = "Delivers to the enabled immediate peers: once, or as a worker that runs until it is interrupted."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--once", action="store_true", help="deliver all pending changes, then exit: 0 if all arrived"
        )
        parser.add_argument(
            "--poll",
            type=float,
            default=0.25,
            help="the longest pause between two polls, in seconds, without database notifications (default: 0.25)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON (with --once)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Deliver once, or until SIGTERM or SIGINT arrives."""
        if options["poll"] <= 0:
            raise CommandError(f"--poll takes a number of seconds above 0, received {options['poll']}.")
        if options["once"]:
            self._deliver_once(as_json=options["json"])
        else:
            self._stay(options["poll"])

    def _deliver_once(self, *, as_json: bool) -> None:
        arrived = {}
        for peer in Peer.objects.filter(enabled=True, immediate=True):
            with PeerSession(peer) as session:
                arrived[peer.name] = session.deliver(registry, impatient=True) is None
        status = collect_status(conf.base_url)
        problems = {name: status.problems_with(name) for name in arrived}
        level = {name: is_there and not problems[name] for name, is_there in arrived.items()}
        if as_json:
            errors = {name: "; ".join(found) for name, found in problems.items() if found}
            self.stdout.write(json.dumps({"level": level, "errors": errors}, indent=2))
        else:
            for name, is_in_sync in level.items():
                why = "; ".join(problems[name]) or "another process delivers"
                self.stdout.write(f"{name}: {'in sync' if is_in_sync else f'not in sync: {why}'}")
        if not all(level.values()):
            raise SystemExit(1)

    def _stay(self, poll: float) -> None:
        # Unlike an Event, this queue may be used in a signal handler at any moment: an Event that is set while this
        # thread is about to wait for it would wait for itself.
        signals: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: signals.put(received))
        worker = Worker(longest_pause=poll)
        worker.start()
        self.stdout.write("Delivering; interrupt to stop.")
        signals.get()
        worker.stop()
