"""Add the files of received rows to the list of wanted files."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ...registry import registry
from ...sync.db.clock import now
from ...sync.port import port
from .models import WantedFile
from .paths import files_of, has_files

if TYPE_CHECKING:
    from ...kind import Kind


def on_resource_applied(*, sender: Any, uuid: UUID, local_key: str | None, **kwargs: Any) -> None:
    """Note the files of a row that was received, and have the peers visited."""
    kind = registry.of_model(sender)
    if kind is None or local_key is None or not has_files(kind):
        return
    if want(kind, uuid, files_of(kind, local_key)):
        port().wake(kind.name, False)


def is_of_interest(kind_name: str) -> bool:
    """Return True if rows of the kind have files."""
    kind = registry.of_kind(kind_name)
    return kind is not None and has_files(kind)


def want(kind: Kind, uuid: UUID, paths: Iterable[str]) -> int:
    """Add the files ``paths`` of a resource to the list, and return their number; a file is in the list once.

    Whether the storage has a file already is found when it is fetched, because the storage may be another server.
    """
    wanted = [
        WantedFile(kind=kind.name, uuid=uuid, path=path, path_hash=hash_of(path), added_at=now()) for path in set(paths)
    ]
    WantedFile.objects.bulk_create(wanted, ignore_conflicts=True)
    return len(wanted)


def hash_of(path: str) -> str:
    """Return a hash of ``path``; an index cannot hold a long path."""
    return blake2b(path.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
