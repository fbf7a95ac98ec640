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
from django.db.models import F

from ...conf import conf
from ...delivery.client import FilePart
from ...delivery.session import PeerSession
from ...exceptions import PeerError, PeerRefused, PeerUnreachable
from ...models import TrackedResource
from ...registry import registry
from ...sync.db.clock import column_lies_ahead, now
from .models import WantedFile
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

#: When a peer may be asked again for a file, by their primary keys (monotonic seconds), and the last pause.
_pauses: dict[tuple[int, int], tuple[float, float]] = {}


class _NotFetched(Exception):
    """A file could not be fetched from this peer now; the text says why."""


def fetch_files(session: PeerSession, until: float = math.inf) -> str:
    """Fetch the wanted files from the peer of ``session`` (network); return which files are still missing.

    It stops after the part that is being fetched at the time ``until`` (monotonic seconds), and goes on with the next
    part when it is called again.
    """
    last = 0
    while not (session.is_to_stop or time.monotonic() >= until):
        wanted = WantedFile.objects.filter(pk__gt=last).order_by("pk").first()
        if wanted is None:
            break
        last = wanted.pk
        if _may_be_asked(session.peer.pk, wanted.pk) and _claim(wanted):
            try:
                _fetch_one(session, wanted, until)
            finally:
                WantedFile.objects.filter(pk=wanted.pk).update(held_until=0)
    count = WantedFile.objects.count()
    if not count:
        _pauses.clear()
        return ""
    first = WantedFile.objects.order_by("pk")[0]
    more = f" and {count - 1} more" if count > 1 else ""
    return f"the file {first.path!r}{more} could not be fetched yet: {first.problem or 'no peer was asked'}"


def _may_be_asked(peer: int, wanted: int) -> bool:
    return time.monotonic() >= _pauses.get((peer, wanted), (0.0, 0.0))[0]


def _claim(wanted: WantedFile) -> bool:
    free = WantedFile.objects.filter(pk=wanted.pk).exclude(column_lies_ahead("held_until", LEASE_MILLIS))
    return bool(free.update(held_until=now() + LEASE_MILLIS))


def _fetch_one(session: PeerSession, wanted: WantedFile, until: float) -> None:
    try:
        storage = _storage_of(wanted)
        if storage is None or storage.exists(wanted.path):
            _forget(wanted)
            return
        if _fetch(session, wanted, storage, until):
            _forget(wanted)
    except (_NotFetched, PeerError, OSError, SuspiciousOperation, NotImplementedError) as error:
        said = f"{session.peer}: {error}"
        logger.warning("The file %r of %s was not fetched: %s", wanted.path, wanted.kind, said)
        _, pause = _pauses.get((session.peer.pk, wanted.pk), (0.0, PAUSES[0] / 2))
        pause = min(pause * 2, PAUSES[1])
        _pauses[session.peer.pk, wanted.pk] = time.monotonic() + pause, pause
        WantedFile.objects.filter(pk=wanted.pk).update(problem=said[:2000], attempts=F("attempts") + 1)
        if isinstance(error, PeerUnreachable):
            raise


def _storage_of(wanted: WantedFile) -> Storage | None:
    """Return the storage of the wanted file; ``None`` if no row has its path any more."""
    kind = registry.of_kind(wanted.kind)
    if kind is None:
        return None
    tracked = TrackedResource.objects.using(kind.database).filter(kind=kind.name, uuid=wanted.uuid).first()
    if tracked is None or tracked.local_key is None:
        return None
    return files_of(kind, tracked.local_key).get(wanted.path)


def _forget(wanted: WantedFile) -> None:
    _part_file(wanted).unlink(missing_ok=True)
    WantedFile.objects.filter(pk=wanted.pk).delete()


def _part_file(wanted: WantedFile) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    directory = Path(tempfile.gettempdir()) / f"sdata_sync_files-{user}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.lstat().st_uid != user:
        raise _NotFetched(f"the directory {directory} of this node belongs to another user")
    # Several nodes may run on one host.
    return directory / f"{hash_of(conf.base_url)}-{wanted.uuid.hex}-{wanted.path_hash}.part"


def _fetch(session: PeerSession, wanted: WantedFile, storage: Storage, until: float) -> bool:
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
            if received and part.version != wanted.version:
                if restarts == MAX_RESTARTS:
                    raise _NotFetched("the file was changed again and again while it was fetched")
                received, restarts = 0, restarts + 1
                continue
            with part_file.open("r+b" if received else "wb") as kept:
                kept.seek(received)
                while chunk := part.body.read(64 * 1024):
                    kept.write(chunk)
                size_before, received = received, kept.tell()
        wanted.version, wanted.size_bytes = part.version, part.size
        WantedFile.objects.filter(pk=wanted.pk).update(
            version=part.version, size_bytes=part.size, received_bytes=received, held_until=now() + LEASE_MILLIS
        )
        if received >= part.size:
            break
        if received == size_before:
            raise _NotFetched(f"it sent no bytes after the first {received} of {part.size}")
    if received > part.size:
        part_file.unlink()
        raise _NotFetched(f"it sent {received} bytes of a file of {part.size}")
    _store(part_file, wanted.path, storage)
    return True


def _read_part(session: PeerSession, wanted: WantedFile, start: int) -> FilePart:
    length = min(PART_BYTES, conf.max_body_bytes)
    try:
        return session.client().read_file(wanted.kind, wanted.uuid, wanted.path, start=start, length=length)
    except PeerRefused as refusal:
        if refusal.status == 404:
            raise _NotFetched("it does not have the file") from refusal
        raise


def _store(part_file: Path, path: str, storage: Storage) -> None:
    with part_file.open("rb") as kept:
        stored = storage.save(path, File(kept))
    if stored != path and not storage.exists(path):
        storage.delete(stored)
        raise _NotFetched(f"the storage of this node does not take the name {path!r}; it would be {stored!r}")
    if stored != path:  # it arrived by another way meanwhile
        storage.delete(stored)
