"""Read and encode children: rows that are sent inside their parent and matched by uuid (SData sync 6.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from ...atom.names import PAYLOAD_DECLARATIONS
from ...atom.payload import Payload, Text, identity
from ...atom.text import escape_attribute
from ...exceptions import PayloadError, UnrepresentableText
from ...kind import Kind, all_rows
from ...models import ChildResource
from ...relations import KEY, PROBLEM, Children, Reading, Received, ReceivedChildren
from ..db.statements import chunks
from ..log.keys import key_text, key_value, key_values
from ..log.marks import new_uuid

#: The function ``contents.contents_of``, which calls this module for children.
Contents = Callable[[Kind, Mapping[str, Sequence[Any]]], dict[str, list[Text]]]


def children_texts(
    relation: Children, keys: Collection[str], contents_of: Contents, *, allocate: bool
) -> dict[str, Text]:
    """Return one text for each of the rows ``keys``: the elements of its children, ordered by uuid.

    If a child cannot be encoded or rendered, the text is the reason (``PROBLEM``).
    """
    kind = relation.kind
    parents, rows = read_children(relation, keys)
    contents = contents_of(kind, rows)
    known = identities(kind, list(rows), allocate=allocate)
    elements: dict[str, list[tuple[str, str]]] = defaultdict(list)
    problems: dict[str, str] = {}
    for key, parent in parents.items():
        uuid, extra = known.get(key, (f"{KEY}{key}", ""))
        problem = _problem(kind, contents[key])
        said = _key_attribute(key) if isinstance(uuid, str) else identity(uuid=str(uuid))
        try:
            element = kind.render(said, contents[key], extra)
        except UnrepresentableText as error:
            problem, element = problem or str(error), ""
        if problem:
            problems[parent] = f"{PROBLEM}{relation.name} {key}: {problem}"
        elements[parent].append((str(uuid), element))
    texts: dict[str, Text] = {key: "".join(element for _, element in sorted(elements[key])) for key in keys}
    texts.update(problems)
    return texts


def _key_attribute(key: str) -> str:
    return f' sdata:key="{escape_attribute(key)}"'


def _problem(kind: Kind, contents: list[Text]) -> str:
    related = zip(kind.relations, contents[len(kind.properties) :], strict=True)
    return next((problem for relation, text in related if (problem := relation.problem(text))), "")


def read_children(relation: Children, keys: Collection[str]) -> tuple[dict[str, str], dict[str, tuple[Any, ...]]]:
    """Return the parents' local keys, and the columns, of the children of the rows ``keys``, both by child key."""
    kind, link = relation.kind, relation.link
    own = kind.model._meta.pk
    parents: dict[str, str] = {}
    rows: dict[str, tuple[Any, ...]] = {}
    for chunk in chunks(keys):
        parent_of = _keys_by_link(relation, chunk)
        found = kind.rows().filter(**{f"{link.attname}__in": list(parent_of)})
        for pk, link_value, *values in found.values_list("pk", link.attname, *kind.selection):
            key = key_text(own, pk)
            parents[key], rows[key] = parent_of[link_value], tuple(values)
    return parents, rows


def _keys_by_link(relation: Children, keys: Sequence[str]) -> dict[Any, str]:
    """Return the local keys of parents by the value in the children's foreign key, which may be no primary key."""
    target = relation.link.target_field
    pk = target.model._meta.pk
    if target.primary_key:
        return {key_value(pk, key): key for key in keys}
    rows = all_rows(target.model, relation.kind.database).filter(pk__in=key_values(pk, keys))
    return {value: key_text(pk, key) for value, key in rows.values_list(target.attname, "pk")}


def identities(kind: Kind, keys: Collection[str], *, allocate: bool) -> dict[str, tuple[UUID, str]]:
    """Return the uuids of children and their unknown elements (XML), by local key.

    With ``allocate``, a child without a uuid gets a new one. Otherwise that child is absent.
    """
    found = _identities(kind, keys)
    missing = [key for key in keys if key not in found]
    if missing and allocate:
        new = (ChildResource(kind=kind.name, uuid=new_uuid(), local_key=key) for key in missing)
        ChildResource.objects.using(kind.database).bulk_create(new, ignore_conflicts=True)
        found.update(_identities(kind, missing))
    return found


def _identities(kind: Kind, keys: Iterable[str]) -> dict[str, tuple[UUID, str]]:
    known = ChildResource.objects.using(kind.database).filter(kind=kind.name)
    return {
        key: (uuid, extra)
        for chunk in chunks(keys)
        for key, uuid, extra in known.filter(local_key__in=chunk).values_list("local_key", "uuid", "extra")
    }


def merged_children(relation: Children, present: Text, received: ReceivedChildren) -> Text:
    """Return the text of the children after ``received`` is applied to the text ``present``; nothing is written.

    Raises:
        PayloadError: a received child has no uuid, so that it cannot be matched.
    """
    kind = relation.kind
    standing = _readings(kind, present or "")
    kept = {} if received.is_complete else dict(standing)
    for child in received.children:
        if child.uuid is None:
            raise PayloadError(f"In {relation.name}: expected an sdata:uuid on each of the children.")
        kept.pop(child.uuid, None)
        if not child.is_deleted:
            kept[child.uuid] = _overlaid(standing.get(child.uuid), child.reading)
    return "".join(
        _render(kind, uuid, reading) for uuid, reading in sorted(kept.items(), key=lambda item: str(item[0]))
    )


def _overlaid(under: Reading | None, over: Reading) -> Reading:
    if under is None:
        return over
    return Reading({**under.values, **over.values}, over.extra or under.extra, {**under.related, **over.related})


def _readings(kind: Kind, text: str) -> dict[UUID, Reading]:
    document = Payload.from_xml(f'<list xmlns="{kind.namespace}"{PAYLOAD_DECLARATIONS}>{text}</list>')
    found = {}
    for child in document:
        uuid = child.attribute("uuid")
        if uuid:
            found[UUID(uuid)] = kind.decode(child.as_payload())
    return found


def _render(kind: Kind, uuid: UUID, reading: Reading) -> str:
    related = (_received_text(reading.related.get(relation.name)) for relation in kind.relations)
    return kind.render(identity(uuid=str(uuid)), [*kind.encode_after(reading, None), *related], reading.extra)


def _received_text(received: Received) -> Text:
    return received if received is None or isinstance(received, str) else ""
