"""The contents of resources: the texts of their properties and relations, which the etag is a hash of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

from ...atom.payload import Text
from ...models import PendingReference, TrackedResource
from ...registry import registry
from ...relations import (
    Association,
    Children,
    GenericReference,
    Keys,
    Reading,
    Received,
    ReceivedChildren,
    ReceivedList,
    Reference,
    Relation,
    association_text,
)
from ...resources import SyncResource
from ..isolation import read_apart
from ..rows import read_rows
from .association import association_texts
from .children import children_texts, merged_children
from .directory import keys_of
from .generic import generic_texts
from .reference import reference_texts

#: What rows wait for: by local key and property, the kinds and uuids.
Waiting = Mapping[str, Mapping[str, Sequence[tuple[str, UUID]]]]


def read_contents(
    resource: SyncResource, tracked: Iterable[TrackedResource]
) -> tuple[dict[str, list[Text]], dict[str, str]]:
    """Read the rows of ``tracked`` and encode them; return their contents and their problems, both by local key.

    A problem is the description of the exception that a row raised when it was read or encoded. A row that does not
    exist has neither.
    """
    by_key = {row.local_key: row for row in tracked if row.local_key is not None}

    def read(keys: Sequence[str]) -> dict[str, list[Text]]:
        rows = read_rows(resource, keys)
        waiting = waiting_of(resource, [by_key[key] for key in keys]) if resource.relations else {}
        return contents_of(resource, rows, waiting)

    return read_apart(resource.database, list(by_key), read)


def contents_of(
    resource: SyncResource, rows: Mapping[str, Sequence[Any]], waiting: Waiting = MappingProxyType({})
) -> dict[str, list[Text]]:
    """Return the contents of ``rows``, columns by local key.

    ``waiting`` is what rows refer to that has not come yet: it belongs to their contents, though not to their columns.
    """
    contents = {key: resource.texts(values) for key, values in rows.items()}
    position = len(resource.properties)
    for relation in resource.relations if contents else ():
        end = position + len(relation.columns)
        columns = {key: tuple(values[position:end]) for key, values in rows.items()}
        texts = _texts(resource, relation, columns, waiting)
        for key, content in contents.items():
            content.append(texts[key])
        position = end
    return contents


def _texts(
    resource: SyncResource, relation: Relation, columns: dict[str, tuple[Any, ...]], waiting: Waiting
) -> dict[str, Text]:
    if isinstance(relation, Children):
        return children_texts(relation, columns, contents_of)
    pending = {key: names[relation.name] for key, names in waiting.items() if relation.name in names}
    if isinstance(relation, Association):
        uuids = {key: [uuid for _, uuid in awaited] for key, awaited in pending.items()}
        return association_texts(resource, relation, columns, uuids)
    if isinstance(relation, GenericReference):
        texts = generic_texts(resource, columns)
        awaited = {key: f"{kind} {uuid}" for key, ((kind, uuid), *_) in pending.items()}
    else:
        assert isinstance(relation, Reference)
        texts = reference_texts(resource, relation, {key: value for key, (value,) in columns.items()})
        awaited = {key: str(uuid) for key, ((_, uuid), *_) in pending.items()}
    # Somebody may have given the row another one meanwhile: that overrules what is waited for.
    texts.update((key, text) for key, text in awaited.items() if key in texts and texts[key] is None)
    return texts


def waiting_of(resource: SyncResource, tracked: Iterable[TrackedResource]) -> Waiting:
    """Return what the rows of ``tracked`` refer to that has not come yet."""
    incomplete = {row.pk: row.local_key for row in tracked if row.is_incomplete and row.local_key}
    if not incomplete:
        return {}
    found: dict[str, dict[str, list[tuple[str, UUID]]]] = defaultdict(lambda: defaultdict(list))
    pending = PendingReference.objects.using(resource.database).filter(resource__in=list(incomplete))
    for pk, name, kind, uuid in pending.order_by("pk").values_list("resource_id", "name", "kind", "uuid"):
        found[incomplete[pk] or ""][name].append((kind, uuid))
    return found


def merged(resource: SyncResource, plain: list[Text], reading: Reading, present: Sequence[Text] | None) -> list[Text]:
    """Return the contents that a row has when ``reading`` is applied to it.

    ``plain`` are the texts of its plain properties then; ``present`` are its contents now, ``None`` for a new row.

    Raises:
        PayloadError: the children that came cannot be told apart.
    """
    contents = list(plain)
    for relation, text in zip(resource.relations, _related(resource, present), strict=True):
        contents.append(
            _merged(relation, text, reading.related[relation.name]) if relation.name in reading.related else text
        )
    return contents


def _related(resource: SyncResource, present: Sequence[Text] | None) -> Sequence[Text]:
    if present is not None:
        return present[len(resource.properties) :]
    return [None if isinstance(relation, Reference | GenericReference) else "" for relation in resource.relations]


def _merged(relation: Relation, present: Text, received: Received) -> Text:
    if isinstance(received, ReceivedList):
        return association_text(received.applied_to(UUID(uuid) for uuid in (present or "").split()))
    if isinstance(received, ReceivedChildren):
        assert isinstance(relation, Children)
        return merged_children(relation, present, received)
    return received


def keys_for(resource: SyncResource, contents: Iterable[Sequence[Text]]) -> Keys:
    """Return the local keys of whatever ``contents`` refer to: they are said beside the uuids."""
    plain = len(resource.properties)
    wanted: dict[tuple[str, str], set[UUID]] = defaultdict(set)
    for content in contents:
        for relation, text in zip(resource.relations, content[plain:], strict=True):
            for kind, uuid in relation.uuids(text):
                wanted[kind, kind or _kind(relation)].add(uuid)
    keys: dict[tuple[str, UUID], str] = {}
    for (said, kind), uuids in wanted.items():
        target = registry.of_kind(kind)
        if target is not None:
            keys.update(((said, uuid), key) for uuid, key in keys_of(target, uuids).items())
    return keys


def _kind(relation: Relation) -> str:
    target = registry.of_model(relation.model) if isinstance(relation, Reference | Association) else None
    return "" if target is None else target.kind
