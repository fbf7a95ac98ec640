"""Read the content of rows: the field texts of their properties and relations, which the etag is a hash of.

``LocalVersion`` is the version of one resource at this node, for conflict decisions and conflict records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db import models

from ...atom.names import PAYLOAD_DECLARATIONS
from ...atom.payload import Text, identity
from ...atom.text import replace_forbidden
from ...kind import Kind
from ...models import DeferredEntry, PendingReference, TrackedResource
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
)
from ..db.faults import ends_page
from ..db.isolation import read_apart
from .children import children_texts, merged_children
from .references import association_texts, generic_texts, keys_of, reference_texts
from .rows import read_rows

#: The targets of pending references, kinds and uuids, by local key and property.
Waiting = Mapping[str, Mapping[str, Sequence[tuple[str, UUID]]]]


def read_contents(
    kind: Kind, tracked: Iterable[TrackedResource], *, allocate: bool = False
) -> tuple[dict[str, list[Text]], dict[str, str]]:
    """Read the rows of ``tracked`` and encode them; return their contents and their problems, both by local key.

    A problem is the description of the exception that a row raised when it was read or encoded. A row that does not
    exist has neither. With ``allocate``, children and referenced rows get a uuid if they have none.
    """
    by_key = {row.local_key: row for row in tracked if row.local_key is not None}

    def read(keys: Sequence[str]) -> dict[str, list[Text]]:
        rows = read_rows(kind, keys)
        waiting = waiting_of(kind, [by_key[key] for key in keys]) if kind.relations else {}
        own = {key: by_key[key].uuid for key in rows if key in by_key}
        return contents_of(kind, rows, waiting, allocate=allocate, own=own)

    return read_apart(kind.database, list(by_key), read)


def contents_of(
    kind: Kind,
    rows: Mapping[str, Sequence[Any]],
    waiting: Waiting = MappingProxyType({}),
    *,
    allocate: bool = False,
    own: Mapping[str, UUID] = MappingProxyType({}),
) -> dict[str, list[Text]]:
    """Return the contents of ``rows`` by local key; ``rows`` holds their columns.

    ``own`` are the uuids of the rows, by local key, where they are known.

    ``waiting`` are the targets of pending references, which belong to the content although the columns are empty.
    """
    contents = {key: kind.encode(values) for key, values in rows.items()}
    position = len(kind.properties)
    for relation in kind.relations if contents else ():
        end = position + len(relation.columns)
        columns = {key: tuple(values[position:end]) for key, values in rows.items()}
        texts = _texts(kind, relation, columns, waiting, allocate=allocate, own=own)
        for key, content in contents.items():
            content.append(texts[key])
        position = end
    return contents


def _texts(
    kind: Kind,
    relation: Relation,
    columns: dict[str, tuple[Any, ...]],
    waiting: Waiting,
    *,
    allocate: bool,
    own: Mapping[str, UUID],
) -> dict[str, Text]:
    if isinstance(relation, Children):
        return children_texts(relation, columns, partial(contents_of, allocate=allocate), allocate=allocate)
    pending = {key: names[relation.name] for key, names in waiting.items() if relation.name in names}
    if isinstance(relation, Association):
        uuids = {key: [uuid for _, uuid in awaited] for key, awaited in pending.items()}
        return association_texts(kind, relation, columns, uuids, allocate=allocate, own=own)
    if isinstance(relation, GenericReference):
        texts = generic_texts(kind, columns, allocate=allocate)
        awaited = {key: f"{kind_name} {uuid}" for key, ((kind_name, uuid), *_) in pending.items()}
    else:
        assert isinstance(relation, Reference)
        values = {key: value for key, (value,) in columns.items()}
        texts = reference_texts(kind, relation, values, allocate=allocate)
        awaited = {key: str(uuid) for key, ((_, uuid), *_) in pending.items()}
    # The application may have set another target meanwhile, which overrules the pending one.
    texts.update((key, text) for key, text in awaited.items() if key in texts and texts[key] is None)
    return texts


def waiting_of(kind: Kind, tracked: Iterable[TrackedResource]) -> Waiting:
    """Return the targets of the pending references of ``tracked``."""
    incomplete = {row.pk: row.local_key for row in tracked if row.is_incomplete and row.local_key is not None}
    if not incomplete:
        return {}
    found: dict[str, dict[str, list[tuple[str, UUID]]]] = defaultdict(lambda: defaultdict(list))
    pending = PendingReference.objects.using(kind.database).filter(resource__in=list(incomplete))
    for pk, name, kind_name, uuid in pending.order_by("pk").values_list("resource_id", "name", "kind", "uuid"):
        found[incomplete[pk]][name].append((kind_name, uuid))
    return found


def merged(kind: Kind, reading: Reading, present: Sequence[Text] | None) -> list[Text]:
    """Return the content that a row will have after ``reading`` is applied to it.

    ``present`` is its content now, ``None`` for a new row.

    Raises:
        PayloadError: a received child has no uuid.
    """
    contents = kind.encode_after(reading, present)
    for relation, text in zip(kind.relations, _related(kind, present), strict=True):
        contents.append(
            _merged(relation, text, reading.related[relation.name]) if relation.name in reading.related else text
        )
    return contents


def _related(kind: Kind, present: Sequence[Text] | None) -> Sequence[Text]:
    if present is not None:
        return present[len(kind.properties) :]
    return [None if isinstance(relation, Reference | GenericReference) else "" for relation in kind.relations]


def _merged(relation: Relation, present: Text, received: Received) -> Text:
    if isinstance(received, ReceivedList):
        return received.applied_to(present)
    if isinstance(received, ReceivedChildren):
        assert isinstance(relation, Children)
        return merged_children(relation, present, received)
    return received


def keys_for(kind: Kind, contents: Iterable[Sequence[Text]]) -> Keys:
    """Return the local keys of the rows that ``contents`` refer to; they are sent beside the uuids."""
    plain = len(kind.properties)
    wanted: dict[tuple[str, str], set[UUID]] = defaultdict(set)
    for content in contents:
        for relation, text in zip(kind.relations, content[plain:], strict=True):
            for kind_name, uuid in relation.uuids(text):
                wanted[kind_name, kind_name or _kind(relation)].add(uuid)
    keys: dict[tuple[str, UUID], str] = {}
    for (said, kind_name), uuids in wanted.items():
        target = registry.of_kind(kind_name)
        if target is not None:
            keys.update(((said, uuid), key) for uuid, key in keys_of(target, uuids).items())
    return keys


def _kind(relation: Relation) -> str:
    target = registry.of_model(relation.model) if isinstance(relation, Reference | Association) else None
    return "" if target is None else target.name


class LocalVersion:
    """Hold the version of a resource at this node; make it before a conflicting version is set on the instance."""

    def __init__(self, kind: Kind, tracked: TrackedResource, instance: models.Model | None, *, allocate: bool) -> None:
        #: The values by column, for the application's ``resolve``; ``None`` without a row or without ``resolve``.
        self.values: dict[str, Any] | None = None
        #: The texts of properties and relations; ``None`` without a row or if the row cannot be encoded.
        self.contents: list[Text] | None = None
        self.payload = ""
        if tracked.is_deferred:
            waiting = DeferredEntry.objects.using(kind.database).filter(resource=tracked.pk).first()
            self.payload = waiting.payload if waiting is not None else ""
        elif instance is not None:
            if kind.decides_itself:
                self.values = {name: value_of(instance, name) for name in kind.columns}
            contents, _ = read_contents(kind, [tracked], allocate=allocate)
            self.contents = contents.get(tracked.row_key)
            texts = _readable_texts(kind, instance) if self.contents is None else self.contents
            self.payload = _shown_payload(kind, tracked, texts)


def value_of(instance: models.Model, name: str) -> Any:
    """Return an attribute of ``instance``, or the value in its ``__dict__`` if a descriptor or property raises."""
    try:
        return getattr(instance, name)
    except Exception as error:
        if ends_page(error):
            raise
        return instance.__dict__.get(name)


def _readable_texts(kind: Kind, instance: models.Model) -> list[Text]:
    """Return the texts of a row, with ``None`` for each value that cannot be encoded."""
    texts: list[Text] = []
    for prop in kind.properties:
        value = instance.__dict__.get(prop.field.attname)
        try:
            texts.append(None if value is None else prop.text(prop.stored_value(value)))
        except Exception as error:
            if ends_page(error):
                raise
            texts.append(None)
    return [*texts, *[None] * len(kind.relations)]


def _shown_payload(kind: Kind, tracked: TrackedResource, texts: list[Text]) -> str:
    try:
        return payload_of(kind, tracked, texts)
    except Exception as error:
        if ends_page(error):
            raise
        # An empty payload would mean that the version is a deletion.
        return kind.template.render_empty(f"{PAYLOAD_DECLARATIONS}{identity(uuid=str(tracked.uuid))}")


def payload_of(kind: Kind, tracked: TrackedResource, texts: list[Text]) -> str:
    """Return a version as an XML document."""
    shown = [None if text is None else replace_forbidden(text) for text in texts]
    return kind.render(f"{PAYLOAD_DECLARATIONS}{identity(uuid=str(tracked.uuid))}", shown, tracked.extra)
