"""What of a model leads to other rows: references, associations, children; and how each stands in a payload.

A relation travels as uuids, never as local keys (SData sync 6.1). Its *text* is the same at every moment and in every
process of a node, so that it can be hashed with the others: the uuid for a reference, the sorted uuids for an
association, the children's own elements in the order of their uuids. Looking up which uuid belongs to which row is
for ``sdata_sync.sync.content``.
"""

from __future__ import annotations

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

    from .resources import SyncResource

#: A text that begins with it is a natural key, of a row whose model is not registered; no uuid begins so.
NATURAL = "="

#: A text that begins with it says why there is none.
PROBLEM = "?"

#: A name that begins with it is a local key: of what has no uuid yet, and must not get one by being looked at.
KEY = "#"

#: Local keys by kind and uuid, of what is referred to: said beside the uuid for people and for other engines.
Keys = Mapping[tuple[str, UUID], str]
NO_KEYS: Keys = MappingProxyType({})


class ReceivedList(NamedTuple):
    """An association as it came: all of it, or what was added and taken away (SData core 9.2)."""

    is_complete: bool
    uuids: frozenset[UUID]
    removed: frozenset[UUID]

    def applied_to(self, present: Iterable[UUID]) -> set[UUID]:
        """Return the members afterwards."""
        return set(self.uuids) if self.is_complete else (set(present) | self.uuids) - self.removed


class ReceivedChild(NamedTuple):
    """One child as it came; ``uuid`` is ``None`` if whoever made it gave it no name."""

    uuid: UUID | None
    is_deleted: bool
    reading: Reading


class ReceivedChildren(NamedTuple):
    """A list of children as it came: all of them, or those that were changed (SData core 9.2)."""

    is_complete: bool
    children: tuple[ReceivedChild, ...]


#: A relation as it came: the text of a reference, or a list.
Received = Text | ReceivedList | ReceivedChildren


class Reading(NamedTuple):
    """What a payload says: values by column, the XML of unknown elements, relations by the name of their property.

    What the payload lacks is absent.
    """

    values: dict[str, Any]
    extra: str = ""
    related: Mapping[str, Received] = {}


@dataclass(frozen=True, eq=False)
class Relation:
    """One property of a payload that leads to other rows; ``columns`` are those of its own row that it stands on."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the model's own table that hold the relation, by attribute name."""
        return ()

    @property
    def is_nullable(self) -> bool:
        """Whether a row can be without."""
        return True

    def render(self, text: Text, keys: Keys) -> str:
        """Return the element."""
        raise NotImplementedError

    def read(self, item: Property) -> Received:
        """Return what the element says.

        Raises:
            PayloadError
        """
        raise NotImplementedError

    def uuids(self, text: Text) -> list[tuple[str, UUID]]:
        """Return the kinds and uuids of what ``text`` leads to; the kind is empty where the model says it."""
        return []

    def problem(self, text: Text) -> str:
        """Return why ``text`` cannot be sent, empty if it can: then the change is held back."""
        return text[1:] if text is not None and text.startswith(PROBLEM) else ""


def read_uuid(item: Property, path: str) -> UUID | None:
    """Return the ``sdata:uuid`` of an element, ``None`` if it has none.

    Raises:
        PayloadError
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
    """A foreign key, also a one-to-one: ``<contact sdata:uuid="…"/>``, or a natural key as text."""

    field: models.ForeignKey[Any, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.field.attname,)

    @property
    def is_nullable(self) -> bool:
        return bool(self.field.null)

    @property
    def model(self) -> type[models.Model]:
        """The model that is referred to."""
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
    """A generic foreign key: a reference that says of which kind it is; its text is the kind and the uuid."""

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
        kind, _, uuid = text.partition(" ")
        return f'<{self.name} dss:kind="{escape_attribute(kind)}"{_identity(kind, uuid, keys)}/>'

    def read(self, item: Property) -> Text:
        uuid = read_uuid(item, item.name)
        kind = item.attribute("kind", names.OWN)
        if uuid is not None and kind and " " not in kind:
            return f"{kind} {uuid}"
        if uuid is None and item.is_nil:
            return None
        raise PayloadError(
            f"In {item.name}: expected a reference with an sdata:uuid and the kind it is of, or xsi:nil.",
            payload_path=item.name,
        )

    def uuids(self, text: Text) -> list[tuple[str, UUID]]:
        if text is None or text.startswith(PROBLEM):
            return []
        kind, _, uuid = text.partition(" ")
        return [] if uuid.startswith(KEY) else [(kind, UUID(uuid))]


@dataclass(frozen=True, eq=False)
class Association(Relation):
    """A many-to-many field: the list of what is associated; its text is the sorted uuids."""

    field: models.ManyToManyField[Any, Any]
    element: str

    @property
    def model(self) -> type[models.Model]:
        """The model that is associated."""
        related: Any = self.field.related_model
        model: type[models.Model] = related._meta.concrete_model
        return model

    @property
    def through(self) -> type[models.Model]:
        """The model of the table that joins both."""
        through: type[models.Model] = self.field.remote_field.through  # type: ignore[assignment]
        return through

    def render(self, text: Text, keys: Keys) -> str:
        inner = "".join(f"<{self.element}{_identity('', uuid, keys)}/>" for uuid in (text or "").split())
        return f'<{self.name} sdata:deleteMissing="true">{inner}</{self.name}>'

    def read(self, item: Property) -> ReceivedList:
        kept: set[UUID] = set()
        removed: set[UUID] = set()
        for child in item:
            path = f"{item.name}/{child.name}"
            uuid = read_uuid(child, path)
            if uuid is None:
                raise PayloadError(f"In {path}: expected an sdata:uuid, found none.", payload_path=path)
            (removed if child.flag("isDeleted") else kept).add(uuid)
        is_complete = item.flag("deleteMissing") or item.is_nil
        return ReceivedList(is_complete, frozenset(kept), frozenset(removed))

    def uuids(self, text: Text) -> list[tuple[str, UUID]]:
        return [("", UUID(uuid)) for uuid in (text or "").split() if not uuid.startswith(KEY)]


def association_text(uuids: Iterable[UUID | str]) -> str:
    """Return the text of an association."""
    return " ".join(sorted(map(str, uuids)))


@dataclass(frozen=True, eq=False)
class Children(Relation):
    """Rows that travel inside their parent: ``<orderLines sdata:deleteMissing="true">`` with an element for each.

    ``resource`` says what of a child travels, ``link`` is its foreign key to the parent.
    """

    resource: SyncResource
    link: models.ForeignKey[Any, Any]

    def render(self, text: Text, keys: Keys) -> str:
        return f'<{self.name} sdata:deleteMissing="true">{text or ""}</{self.name}>'

    def read(self, item: Property) -> ReceivedChildren:
        children = []
        for child in item:
            path = f"{item.name}/{child.name}"
            payload = child.as_payload()
            is_deleted = child.flag("isDeleted")
            reading = Reading({}) if is_deleted else self.resource.read_payload(payload, within=f"{item.name}/")
            children.append(ReceivedChild(read_uuid(child, path), is_deleted, reading))
        return ReceivedChildren(item.flag("deleteMissing") or item.is_nil, tuple(children))
