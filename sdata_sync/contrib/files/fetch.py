"""Fetch wanted files from a peer, in parts. What has arrived is kept in a temporary file until the file is complete."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from pathlib import Path

from django.core.exceptions import SuspiciousOperation
from django.core.files import File
from django.core.files.storage import Storage
from django.db.models import F, QuerySet

from ...conf import conf
from ...delivery.client import FilePart
from ...delivery.session import PeerSession
from ...exceptions import PeerError, PeerRefused, PeerUnreachable
from ...models import TrackedResource
from ...registry import registry
from ...sync.db.clock import column_lies_ahead, now
from ...sync.db.faults import describe, is_lost_connection
from ...sync.identity.link import survivor_of
from .models import RowFile, State
from .paths import files_of
from .wanted import hash_of

logger = logging.getLogger(__name__)

#: The number of bytes that one request asks for.
PART_BYTES = 4 * 1024 * 1024
#: How often a fetch begins again because the file was changed at the peer.
MAX_RESTARTS = 3
#: How long a process may be silent while it fetches a file; then another process fetches it.
LEASE_MILLIS = 120_000
#: The pause before a peer is asked again for a file that it did not give, in seconds: the first and the longest.
PAUSES = (5.0, 600.0)

#: In place of the primary key of a file: the peer cannot be reached, and is asked for none.
_ANY = 0
#: The greatest number of paused files that a query leaves out; the others are asked for once more.
MAX_PAUSED = 500

#: When a peer may be asked again for a file, by their primary keys (monotonic seconds), and the last pause.
_pauses: dict[tuple[int, int], tuple[float, float]] = {}


class _NotFetched(Exception):
    """A file could not be fetched from this peer now; the text says why."""


def fetch_files(session: PeerSession, until: float = math.inf) -> str:
    """Fetch the wanted files from the peer of ``session`` (network); return which files are still missing.

    It stops after the part that is being fetched at the time ``until`` (monotonic seconds), and goes on with the next
    part when it is called again.
    """
    peer, last = session.peer.pk, 0
    while _may_be_asked(peer, _ANY) and not session.is_to_stop and time.monotonic() < until:
        wanted = _missing().filter(pk__gt=last).exclude(pk__in=_paused(peer)).order_by("pk").first()
        if wanted is None:
            break
        last = wanted.pk
        if _claim(wanted):
            try:
                _fetch_one(session, wanted, until)
            finally:
                RowFile.objects.filter(pk=wanted.pk).update(held_until=0)
    count = _missing().count()
    if not count:
        return ""
    first = _missing().order_by("pk")[0]
    more = f" and {count - 1} more" if count > 1 else ""
    return f"the file {first.path!r}{more} could not be fetched yet: {first.problem or 'no peer was asked'}"


def missing_files(kind: str) -> str:
    """Return how many files of the rows of ``kind`` are not here, as a text; empty if none is missing."""
    missing = _missing().filter(kind=kind)
    count = missing.count()
    if not count:
        return ""
    first = missing.order_by("pk")[0]
    return f"{count} {'files are' if count > 1 else 'file is'} missing, for example {first.path!r}"


def _missing() -> QuerySet[RowFile]:
    return RowFile.objects.exclude(state=State.HERE)


def _may_be_asked(peer: int, wanted: int) -> bool:
    return time.monotonic() >= _pauses.get((peer, wanted), (0.0, 0.0))[0]


def _paused(peer: int) -> list[int]:
    return [wanted for asked, wanted in list(_pauses) if asked == peer and not _may_be_asked(peer, wanted)][:MAX_PAUSED]


def _pause(peer: int, wanted: int) -> None:
    _, before = _pauses.get((peer, wanted), (0.0, PAUSES[0] / 2))
    pause = min(before * 2, PAUSES[1])
    _pauses[peer, wanted] = time.monotonic() + pause, pause


def _claim(wanted: RowFile) -> bool:
    free = RowFile.objects.filter(pk=wanted.pk).exclude(column_lies_ahead("held_until", LEASE_MILLIS))
    return bool(free.update(held_until=now() + LEASE_MILLIS))


def _fetch_one(session: PeerSession, wanted: RowFile, until: float) -> None:
    try:
        storage = _storage_of(wanted)
        if storage is None:
            wanted.delete()
        elif storage.exists(wanted.path) and _is_same_file(session, wanted, storage):
            RowFile.objects.filter(pk=wanted.pk).update(state=State.HERE, problem="")
        elif storage.exists(wanted.path):
            RowFile.objects.filter(pk=wanted.pk).update(state=State.TAKEN)
            raise _NotFetched("the storage of this node has another file of this name; sync_files --accept takes it")
        elif _fetch(session, wanted, storage, until):
            RowFile.objects.filter(pk=wanted.pk).update(state=State.HERE, problem="")
            _pauses.pop((session.peer.pk, wanted.pk), None)
    except Exception as error:  # a storage may raise anything; one file must not stop the others
        if is_lost_connection(error):
            raise
        is_expected = isinstance(error, _NotFetched | PeerError | OSError | SuspiciousOperation)
        said = f"{session.peer}: {error if is_expected else describe(error)}"
        logger.warning("The file %r of %s was not fetched: %s", wanted.path, wanted.kind, said)
        _pause(session.peer.pk, wanted.pk)
        RowFile.objects.filter(pk=wanted.pk).update(problem=said[:2000], attempts=F("attempts") + 1)
        if isinstance(error, PeerUnreachable):
            _pause(session.peer.pk, _ANY)
            raise


def _is_same_file(session: PeerSession, wanted: RowFile, storage: Storage) -> bool:
    """Return True if the present file was fetched for another row, and is the one that the peer has for this row."""
    fetched = RowFile.objects.filter(path_hash=wanted.path_hash, state=State.HERE).exclude(version="")
    versions = set(fetched.values_list("version", flat=True))
    if not versions:
        return False
    part = _read_part(session, wanted, 0, length=1)
    with part.body:
        return part.version in versions and part.size == storage.size(wanted.path)


def _storage_of(wanted: RowFile) -> Storage | None:
    """Return the storage of the wanted file; ``None`` if no row has its path any more."""
    kind = registry.of_kind(wanted.kind)
    if kind is None:
        return None
    tracked = TrackedResource.objects.using(kind.database).filter(kind=kind.name, uuid=wanted.uuid).first()
    tracked = None if tracked is None else survivor_of(kind, tracked)
    if tracked is None or tracked.local_key is None:
        return None
    return files_of(kind, tracked.local_key).get(wanted.path)


def _part_file(wanted: RowFile) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    directory = Path(tempfile.gettempdir()) / f"sdata_sync_files-{user}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.lstat().st_uid != user:
        raise _NotFetched(f"the directory {directory} of this node belongs to another user")
    # Several nodes may run on one host.
    parts = (hash_of(conf.base_url), wanted.uuid.hex, wanted.path_hash, hash_of(wanted.version))
    return directory / f"{'-'.join(parts)}.part"


def _fetch(session: PeerSession, wanted: RowFile, storage: Storage, until: float) -> bool:
    """Fetch the parts of one file, and store it; return False if the time was up before the last part."""
    part_file = _part_file(wanted)
    received = part_file.stat().st_size if part_file.exists() and wanted.version else 0
    restarts = 0
    while True:
        if session.is_to_stop or time.monotonic() >= until:
            return False
        part = _read_part(session, wanted, received)
        with part.body:
            if part.size > conf.max_file_bytes:
                raise _NotFetched(
                    f"it has {part.size} bytes; this node accepts {conf.max_file_bytes}. Raise MAX_FILE_BYTES."
                )
            if part.start != received or (received and part.version != wanted.version):  # it was changed at the peer
                if restarts == MAX_RESTARTS:
                    raise _NotFetched("the file was changed again and again while it was fetched")
                part_file.unlink(missing_ok=True)
                received, restarts = 0, restarts + 1
                continue
            if not received:
                wanted.version = part.version
                part_file = _part_file(wanted)
            before, received = received, _keep(part_file, part, received)
        RowFile.objects.filter(pk=wanted.pk).update(
            version=part.version, size_bytes=part.size, received_bytes=received, held_until=now() + LEASE_MILLIS
        )
        if received >= part.size:
            break
        if received == before:
            raise _NotFetched(f"it sent no bytes after the first {received} of {part.size}")
    try:
        if received > part.size:
            raise _NotFetched(f"it sent {received} bytes of a file of {part.size}")
        _store(part_file, wanted.path, storage)
    finally:
        part_file.unlink()
    return True


def _keep(part_file: Path, part: FilePart, received: int) -> int:
    """Write a part behind the ``received`` bytes; return the number of bytes that are kept then."""
    with part_file.open("r+b" if received else "wb") as kept:
        kept.seek(received)
        while chunk := part.body.read(64 * 1024):
            kept.write(chunk)
        return kept.tell()


def _read_part(session: PeerSession, wanted: RowFile, start: int, *, length: int = 0) -> FilePart:
    length = min(length or PART_BYTES, conf.max_body_bytes)
    try:
        return session.client().read_file(wanted.kind, wanted.uuid, wanted.path, start=start, length=length)
    except PeerRefused as refusal:
        if refusal.status == 404:
            raise _NotFetched("it does not have the file") from refusal
        raise


def _store(part_file: Path, path: str, storage: Storage) -> None:
    with part_file.open("rb") as kept:
        stored = storage.save(path, File(kept))
    if stored != path:
        storage.delete(stored)
        if not storage.exists(path):
            raise _NotFetched(f"the storage of this node does not take the name {path!r}; it would be {stored!r}")
