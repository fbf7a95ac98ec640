"""``manage.py sync_files``: find the files that the storages of this node lack, and fetch them from the peers."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import Storage
from django.core.management.base import BaseCommand

from .....delivery.session import PeerSession
from .....exceptions import PeerError
from .....management.choose import chosen_kinds, chosen_peers
from .....models import TrackedResource
from ...fetch import fetch_files
from ...models import RowFile, State
from ...paths import files_of, has_files
from ...wanted import have, want


def _exists(storage: Storage, path: str) -> bool:
    try:
        return storage.exists(path)
    except SuspiciousOperation:
        return False


class Command(BaseCommand):
    """Compare the paths in the rows with the storages, and fetch what is missing."""

    help = (
        "Finds the files that rows of this node name and its storages do not have, and fetches them from the enabled "
        "peers. Exits with 0 only if no file is missing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--peer", action="append", help="only from this peer (its name); may be repeated")
        parser.add_argument(
            "--accept",
            nargs="*",
            metavar="PATH",
            help="take a file that has the name of a wanted one already for that file: those of these paths, or "
            "without a path all of them; look at the list before",
        )
        parser.add_argument("--kind", action="append", help="only this kind; may be repeated")

    def handle(self, *args: Any, **options: Any) -> None:
        """Add missing files to the list, visit the peers, and print what is missing."""
        peers = chosen_peers(options["peer"])
        for kind in chosen_kinds(options["kind"]):
            if has_files(kind):
                rows = TrackedResource.objects.using(kind.database).filter(kind=kind.name, local_key__isnull=False)
                for uuid, key in rows.values_list("uuid", "local_key").iterator(1000):
                    files = files_of(kind, str(key))
                    known = set(RowFile.objects.filter(kind=kind.name, uuid=uuid).values_list("path", flat=True))
                    have(kind, uuid, [path for path in files.keys() - known if _exists(files[path], path)])
                    want(kind, uuid, files)
        if options["accept"] is not None:
            taken = RowFile.objects.filter(state=State.TAKEN)
            if options["accept"]:
                taken = taken.filter(path__in=options["accept"])
            taken.update(state=State.HERE, problem="")
        for peer in peers:
            with PeerSession(peer) as session:
                try:
                    fetch_files(session)
                except PeerError as error:
                    self.stderr.write(self.style.ERROR(f"{peer}: {error}"))
        missing = list(RowFile.objects.exclude(state=State.HERE).order_by("pk"))
        for wanted in missing:
            self.stdout.write(f"{wanted.kind}: {wanted.path}: {wanted.problem or 'not fetched'}")
        if missing:
            raise SystemExit(1)
        self.stdout.write("No file is missing.")
