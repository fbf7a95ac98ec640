"""Keep the list of the files of rows: those of received rows are wanted, those of rows that are saved here are here."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.signals import post_save

from ...core.state import same_endpoint
from ...models import TrackedResource
from ...registry import registry
from ...sync.db.clock import now
from ...sync.log.keys import key_text
from ...sync.log.suppression import is_applying
from ...sync.port import port
from .models import RowFile, State
from .paths import file_fields, files_of, has_files

if TYPE_CHECKING:
    from ...kind import Kind


def on_resource_applied(*, sender: Any, uuid: UUID, local_key: str | None, **kwargs: Any) -> None:
    """Note the files of a row that was received, and have the peers visited."""
    kind = registry.of_model(sender)
    if kind is None or local_key is None or not has_files(kind):
        return
    if want(kind, uuid, files_of(kind, local_key)):
        port().wake(kind.name, False)


def connect_models(**kwargs: Any) -> None:
    """Note the files of rows that are saved at this node, after the capture of the same save has tracked the row."""
    for kind in registry:
        with suppress(FieldDoesNotExist):  # the system checks report it
            for each in (kind, *(children.kind for children in kind.child_lists)):
                if file_fields(each):
                    uid = f"{__name__}.{each.name}"
                    post_save.disconnect(sender=each.model, dispatch_uid=uid)
                    post_save.connect(on_save, sender=each.model, dispatch_uid=uid)


def on_save(*, sender: Any, instance: models.Model, **kwargs: Any) -> None:
    """Note that the files of a row which was saved at this node are here."""
    if is_applying() is not None:
        return
    owners = [(kind, getattr(instance, children.link.attname)) for kind, children in registry.parents_of(sender)]
    kind = registry.of_model(sender)
    if kind is not None:
        owners.append((kind, instance.pk))
    for owner, pk in owners:
        key = key_text(owner.model._meta.pk, pk)
        tracked = TrackedResource.objects.using(owner.database).filter(kind=owner.name, local_key=key).first()
        if tracked is not None:
            have(owner, tracked.uuid, files_of(owner, key))


def have(kind: Kind, uuid: UUID, paths: Iterable[str]) -> None:
    """Note that the files ``paths`` of a resource are in the storage of this node."""
    path_by_hash = {hash_of(path): path for path in paths}
    listed = RowFile.objects.filter(kind=kind.name, uuid=uuid, path_hash__in=path_by_hash)
    if listed.filter(state=State.HERE).count() == len(path_by_hash):
        return
    _add(kind, uuid, path_by_hash.values(), State.HERE)
    listed.exclude(state=State.HERE).update(state=State.HERE, problem="")


def is_here(kind: Kind, tracked: TrackedResource, path: str) -> bool:
    """Return True if the file ``path`` of a resource may be served: it was made here, or was fetched for the row.

    A peer could otherwise name any file of the storage in a row of its own, and read it.
    """
    files = RowFile.objects.filter(kind=kind.name, uuid=tracked.uuid, path_hash=hash_of(path))
    state = files.values_list("state", flat=True).first()
    if state is None:  # a row from before the app was installed, or one that was written past save()
        return tracked.endpoint is None or same_endpoint(tracked.endpoint.url, kind.endpoint)
    return bool(state == State.HERE)


def is_of_interest(kind_name: str) -> bool:
    """Return True if rows of the kind have files."""
    kind = registry.of_kind(kind_name)
    return kind is not None and has_files(kind)


def want(kind: Kind, uuid: UUID, paths: Iterable[str]) -> int:
    """Add the files ``paths`` of a resource to the list, and return their number; a file is in the list once.

    Whether the storage has a file already is found when it is fetched, because the storage may be another server.
    """
    return _add(kind, uuid, set(paths), State.WANTED)


def _add(kind: Kind, uuid: UUID, paths: Iterable[str], state: State) -> int:
    added = [
        RowFile(kind=kind.name, uuid=uuid, path=path, path_hash=hash_of(path), state=state, added_at=now())
        for path in paths
    ]
    RowFile.objects.bulk_create(added, ignore_conflicts=True)
    return len(added)


def hash_of(path: str) -> str:
    """Return a hash of ``path``; an index cannot hold a long path."""
    return blake2b(path.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
