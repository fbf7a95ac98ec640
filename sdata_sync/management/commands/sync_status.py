"""``manage.py sync_status``: print the state of every peer in every kind."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from ...conf import conf
from ...delivery.monitoring.health import examine
from ...delivery.monitoring.status import KindStatus, Status, StreamStatus, collect_status
from ...sync.log.digests import moved


class Command(BaseCommand):
    """Print the state of the synchronisation."""

    help = "Prints, per kind and peer, how many ticks the peer is behind, the last success and the last error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--check",
            action="store_true",
            help="for monitoring: print the problems, exit with 0 (ok), 1 (warning) or 2 (critical)",
        )
        parser.add_argument(
            "--warning", type=float, default=60.0, metavar="SECONDS", help="the delay of a peer that is a warning (60)"
        )
        parser.add_argument(
            "--critical",
            type=float,
            default=600.0,
            metavar="SECONDS",
            help="the delay of a peer that is critical (600)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the state; exit with 1 if a peer is not in sync."""
        status = collect_status(conf.base_url)
        if options["check"]:
            self._check(status, options)
            return
        if options["json"]:
            self.stdout.write(json.dumps(status.as_dict(), cls=DjangoJSONEncoder, indent=2))
        else:
            self._print(status)
        if not status.is_level:
            raise SystemExit(1)

    def _check(self, status: Status, options: dict[str, Any]) -> None:
        if not 0 < options["warning"] <= options["critical"]:
            raise CommandError("Expected --warning above 0, and --critical not below --warning.")
        health = examine(status, warning=options["warning"], critical=options["critical"])
        if options["json"]:
            self.stdout.write(json.dumps(health.as_dict(), indent=2))
        else:
            self.stdout.write(f"SDATA {health.level.name} - {health.summary}")
            for problem in health.problems:
                self.stdout.write(f"{problem.level.name}: {problem.text}")
        if health.level:
            raise SystemExit(int(health.level))

    def _print(self, status: Status) -> None:
        self.stdout.write(f"Node {status.node}")
        for kind in status.kinds:
            incomplete = f", {kind.incomplete}" if kind.incomplete else ""
            self.stdout.write(f"\n{kind.kind}: tick {kind.tick}{incomplete}")
            for stream in kind.streams:
                self.stdout.write(f"  {self._line(kind, stream)}")
            if not kind.streams:
                self.stdout.write("  no peers")
            if kind.is_behind:
                self._warn(
                    "RESTORED: peers have higher ticks of this node than it has itself. No ticks are assigned "
                    "until those changes are back: sync_catchup --pull, or sync_rejoin."
                )
            if kind.former_url:
                self._warn(f"MOVED: {moved(kind.kind, kind.former_url, kind.endpoint)}")
            if kind.rejoined_at:
                self._warn(f"RESTORED: {kind.rejoined} ({kind.rejoined_at:%Y-%m-%d %H:%M:%S})")
        for clone in status.clones:
            self._warn(f"CLONE: {clone.endpoint}: {clone.note}")
        for anomaly in status.anomalies:
            self._warn(f"CLAIM: {anomaly.endpoint}: {anomaly.note} ({anomaly.seen_at:%Y-%m-%d %H:%M:%S})")
        for clock in status.clocks:
            self._warn(
                f"CLOCK: {clock.endpoint} stamped changes {clock.ahead_seconds:.1f} s ahead of this node's clock "
                f"({clock.seen_at:%Y-%m-%d %H:%M:%S})"
            )

    def _warn(self, text: str) -> None:
        self.stdout.write(self.style.WARNING(f"\n{text}"))

    def _line(self, kind: KindStatus, stream: StreamStatus) -> str:
        behind = "not contacted yet" if stream.ticks_behind is None else f"{stream.ticks_behind} ticks behind"
        level = "in sync" if kind.is_complete else "has all changes"
        if not stream.is_shared:
            return f"{stream.peer}: not shared"
        text = f"{stream.peer}: {level if stream.is_level else behind}"
        if stream.held:
            text += f", {len(stream.held)} versions left out"
        if stream.last_success:
            text += f", last success {stream.last_success:%Y-%m-%d %H:%M:%S}"
        if stream.failures:
            text += f", failed {stream.failures} times in a row"
        if stream.reason:
            text += f": {stream.reason}"
        return self.style.SUCCESS(text) if stream.is_level else self.style.ERROR(text)
