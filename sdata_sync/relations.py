"""Describe the relations of a model, and read and write each of them in a payload.

Relations are references, associations and children. A relation travels as uuids, never as local keys (SData sync 6.1).
Its *text* is the same at all times and in every process of a node, so that it can be hashed with the other texts:
the uuid for a reference, the sorted uuids for an association, the elements of the children in the order of their uuids.
``sdata_sync.sync.content`` looks up which uuid belongs to which row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.db import models

from .atom import names
from .atom.payload import Property, Text
from .atom.text import escape, escape_attribute, is_representable, replace_forbidden
from .exceptions import PayloadError

if TYPE_CHECKING:
    from django.contrib.contenttypes.fields import GenericForeignKey

    from .kind import Kind

#: The prefix of a text that is a natural key of a row whose model is not registered. No uuid begins with it.
NATURAL = "="

#: The prefix of a text that is an error message, because the relation has no text.
PROBLEM = "?"

#: The prefix of a local key, for a row that has no uuid yet: reading must not assign one.
KEY = "#"

#: Local keys of referenced rows by kind and uuid. They are sent beside the uuid for people and for other engines.
Keys = Mapping[tuple[str, UUID], str]
NO_KEYS: Keys = MappingProxyType({})


class ReceivedList(NamedTuple):
    """Hold a received association: the complete list, or the added and removed members (SData core 9.2).

    The members are named by uuid; or by natural key, if their model is not registered.
    """

    is_complete: bool
    uuids: frozenset[UUID]
    removed: frozenset[UUID]
    natural: frozenset[str] = frozenset()
    removed_natural: frozenset[str] = frozenset()

    def applied_to(self, text: Text) -> Text:
        """Return the text of the association after the list is applied to one with ``text``."""
        if self.natural or self.removed_natural or (text or "").startswith(NATURAL):
            present = set() if self.is_complete else natural_keys(text)
            return natural_text((present | self.natural) - self.removed_natural)
        uuids = set() if self.is_complete else {UUID(uuid) for uuid in (text or "").split()}
        return association_text((uuids | self.uuids) - self.removed)


class ReceivedChild(NamedTuple):
    """Hold one received child; ``uuid`` is ``None`` if the sender assigned none."""

    uuid: UUID | None
    is_deleted: bool
    reading: Reading


class ReceivedChildren(NamedTuple):
    """Hold a received list of children: complete, or the changed children only (SData core 9.2)."""

    is_complete: bool
    children: tuple[ReceivedChild, ...]


#: A received relation: the text of a reference, or a list.
Received = Text | ReceivedList | ReceivedChildren


class Reading(NamedTuple):
    """Hold the content of a payload: values by column, the XML of unknown elements, relations by property.

    Properties that the payload does not contain are absent.
    """

    values: dict[str, Any]
    extra: str = ""
    related: Mapping[str, Received] = {}


@dataclass(frozen=True, eq=False)
class Relation:
    """Describe one property of a payload that refers to other rows."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of the model's own table that hold the relation, by attribute name."""
        return ()

    @property
    def is_nullable(self) -> bool:
        """Return True if a row may have no related row."""
        return True

    def render(self, text: Text, keys: Keys) -> str:
        """Return the element as text."""
        raise NotImplementedError

    def read(self, item: Property) -> Received:
        """Return the relation that the element describes.

        Raises:
            PayloadError: the element is malformed, or has no uuid where one is required.
        """
        raise NotImplementedError

    def uuids(self, text: Text) -> list[tuple[str, UUID]]:
        """Return the kinds and uuids in ``text``; the kind is empty if the model determines it."""
        return []

    def problem(self, text: Text) -> str:
        """Return why ``text`` cannot be sent, so that the change is held back; empty if it can be sent."""
        return text[1:] if text is not None and text.startswith(PROBLEM) else ""


def read_uuid(item: Property, path: str) -> UUID | None:
    """Return the ``sdata:uuid`` of an element, or ``None`` if it has none.

    Raises:
        PayloadError: the uuid is malformed.
    """
    text = item.attribute("uuid")
    if not text:
        return None
    try:
        return UUID(text.strip())
    except ValueError as error:
        raise PayloadError(f"In {path}: expected a uuid, received {text.strip()[:60]!r}.", payload_path=path) from error


@dataclass(frozen=True, eq=False)
class Reference(Relation):
    """Describe a foreign key or one-to-one field: ``<contact sdata:uuid="…"/>``, or a natural key as text."""

    field: models.ForeignKey[Any, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.field.attname,)

    @property
    def is_nullable(self) -> bool:
        return bool(self.field.null)

    @property
    def model(self) -> type[models.Model]:
        """Return the referenced model."""
        related: Any = self.field.related_model
        model: type[models.Model] = related._meta.concrete_model
        return model

    def render(self, text: Text, keys: Keys) -> str:
        if text is None:
            return f'<{self.name} xsi:nil="true"/>'
        if text.startswith(NATURAL):
            return f"<{self.name}>{escape(text[1:])}</{self.name}>"
        return f"<{self.name}{_identity('', text, keys)}/>"

    def read(self, item: Property) -> Text:
        uuid = read_uuid(item, item.name)
        if uuid is not None:
            return str(uuid)
        if item.is_nil:
            return None
        text = item.text if item.is_plain else None
        if not text:
            raise PayloadError(
                f"In {item.name}: expected a reference with an sdata:uuid, or xsi:nil.", payload_path=item.name
            )
        return f"{NATURAL}{text}"

    def uuids(self, text: Text) -> list[tuple[str, UUID]]:
        return [] if text is None or text.startswith((NATURAL, KEY, PROBLEM)) else [("", UUID(text))]


def _identity(kind: str, uuid: str, keys: Keys) -> str:
    if uuid.startswith(KEY):
        return f' sdata:key="{escape_attribute(replace_forbidden(uuid[1:]))}"'
    key = keys.get((kind, UUID(uuid)))
    said = "" if key is None or not is_representable(key) else f' sdata:key="{escape_attribute(key)}"'
    return f' sdata:uuid="{uuid}"{said}'


@dataclass(frozen=True, eq=False)
class GenericReference(Relation):
    """Describe a generic foreign key: a reference with its kind; its text is the kind and the uuid.

    A third word is the label of a proxy model, if the content type is that of the proxy.
    """

    field: GenericForeignKey
    model: type[models.Model]

    @property
    def columns(self) -> tuple[str, ...]:
        meta = self.model._meta
        content_type = meta.get_field(self.field.ct_field)
        return (content_type.attname, meta.get_field(self.field.fk_field).attname)  # type: ignore[union-attr]

    @property
    def is_nullable(self) -> bool:
        meta = self.model._meta
        return all(meta.get_field(name).null for name in (self.field.ct_field, self.field.fk_field))

    def render(self, text: Text, keys: Keys) -> str:
        if text is None:
            return f'<{self.name} xsi:nil="true"/>'
        kind, uuid, *proxy = text.split(" ")
        said = f' dss:proxy="{escape_attribute(proxy[0])}"' if proxy else ""
        return f'<{self.name} dss:kind="{escape_attribute(kind)}"{said}{_identity(kind, uuid, keys)}/>'

    def read(self, item: Property) -> Text:
        uuid = read_uuid(item, item.name)
        kind, proxy = item.attribute("kind", names.OWN), item.attribute("proxy", names.OWN)
        if uuid is not None and kind and " " not in f"{kind}{proxy or ''}":
            return f"{kind} {uuid} {proxy}" if proxy else f"{kind} {uuid}"
        if uuid is None and item.is_nil:
            return None
        raise PayloadError(
            f"In {item.name}: expected a reference with an sdata:uuid and the kind it is of, or xsi:nil.",
            payload_path=item.name,
        )

    def uuids(self, text: Text) -> list[tuple[str, UUID]]:
        if text is None or text.startswith(PROBLEM):
            return []
        kind, uuid, *_ = text.split(" ")
        return [] if uuid.startswith(KEY) else [(kind, UUID(uuid))]


@dataclass(frozen=True, eq=False)
class Association(Relation):
    """Describe a many-to-many field: a list of references; its text is the sorted uuids, or the sorted natural keys."""

    field: models.ManyToManyField[Any, Any]
    element: str

    @property
    def model(self) -> type[models.Model]:
        """Return the associated model."""
        related: Any = self.field.related_model
        model: type[models.Model] = related._meta.concrete_model
        return model

    @property
    def through(self) -> type[models.Model]:
        """Return the model of the join table."""
        through: type[models.Model] = self.field.remote_field.through  # type: ignore[assignment]
        return through

    @property
    def is_symmetrical(self) -> bool:
        """Return True if each of two associated rows is a member of the other.

        Such a pair is in the text of one of the two rows: of the one with the lower uuid. A row may be its own member.
        """
        return bool(self.field.remote_field.symmetrical)

    def render(self, text: Text, keys: Keys) -> str:
        if text is not None and text.startswith(NATURAL):
            inner = "".join(f"<{self.element}>{escape(key)}</{self.element}>" for key in sorted(natural_keys(text)))
        else:
            inner = "".join(f"<{self.element}{_identity('', uuid, keys)}/>" for uuid in (text or "").split())
        return f'<{self.name} sdata:deleteMissing="true">{inner}</{self.name}>'

    def read(self, item: Property) -> ReceivedList:
        uuids: tuple[set[UUID], set[UUID]] = set(), set()
        natural: tuple[set[str], set[str]] = set(), set()
        for child in item:
            path = f"{item.name}/{child.name}"
            uuid, is_removed = read_uuid(child, path), child.flag("isDeleted")
            if uuid is not None:
                uuids[is_removed].add(uuid)
            elif child.is_plain and not child.is_nil:
                natural[is_removed].add(child.text or "")
            else:
                raise PayloadError(f"In {path}: expected an sdata:uuid, found none.", payload_path=path)
        is_complete = item.flag("deleteMissing") or item.is_nil
        (kept, removed), (kept_natural, removed_natural) = uuids, natural
        return ReceivedList(
            is_complete, frozenset(kept), frozenset(removed), frozenset(kept_natural), frozenset(removed_natural)
        )

    def uuids(self, text: Text) -> list[tuple[str, UUID]]:
        if text is None or text.startswith((NATURAL, PROBLEM)):
            return []
        return [("", UUID(uuid)) for uuid in text.split() if not uuid.startswith(KEY)]


def association_text(uuids: Iterable[UUID | str]) -> str:
    """Return the text of an association: the sorted uuids, separated by spaces."""
    return " ".join(sorted(map(str, uuids)))


def natural_text(keys: Iterable[str]) -> str:
    """Return the text of an association to rows with these natural keys; empty for none."""
    found = sorted(keys)
    return NATURAL + json.dumps(found, ensure_ascii=False) if found else ""


def natural_keys(text: Text) -> set[str]:
    """Return the natural keys in the text of an association."""
    return set(json.loads(text.removeprefix(NATURAL))) if text else set()


@dataclass(frozen=True, eq=False)
class Children(Relation):
    """Describe rows that travel inside their parent: ``<orderLines sdata:deleteMissing="true">``.

    ``kind`` describes the payload of a child. ``link`` is the child's foreign key to the parent.
    """

    kind: Kind
    link: models.ForeignKey[Any, Any]

    def render(self, text: Text, keys: Keys) -> str:
        return f'<{self.name} sdata:deleteMissing="true">{text or ""}</{self.name}>'

    def read(self, item: Property) -> ReceivedChildren:
        children = []
        for child in item:
            path = f"{item.name}/{child.name}"
            payload = child.as_payload()
            is_deleted = child.flag("isDeleted")
            reading = Reading({}) if is_deleted else self.kind.decode(payload, within=f"{item.name}/")
            children.append(ReceivedChild(read_uuid(child, path), is_deleted, reading))
        return ReceivedChildren(item.flag("deleteMissing") or item.is_nil, tuple(children))
