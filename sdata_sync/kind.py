"""Compute from a ``SyncResource`` everything that the engine needs for one model: columns, payloads, etags, URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from inspect import getattr_static
from typing import Any
from urllib.parse import quote

from django.core.exceptions import FieldDoesNotExist
from django.db import models, router
from django.db.models.query_utils import DeferredAttribute

from .atom.payload import Payload, PayloadTemplate, Text
from .codecs import JSON_NULL, Codec, StoredColumn, attribute_value, codec_of, may_alter, stored_field, stored_value
from .conf import conf
from .core.text import fold
from .exceptions import PayloadError
from .relations import NO_KEYS, Association, Children, GenericReference, Keys, Reading, Received, Reference, Relation
from .resources import SyncResource, camel_case, plural


def all_rows(model: type[models.Model], using: str) -> models.QuerySet[Any]:
    """Return all rows of ``model``, without its managers, which may hide rows or capture writes."""
    return models.QuerySet(model, using=using)


@dataclass(frozen=True)
class ResourceProperty:
    """Describe one property of a payload: the ``name`` of its element, the model ``field`` and its ``codec``.

    Three values are told apart: the text on the wire, the stored value (what the column holds), and the attribute of an
    instance, which a field of the application may convert to another type.
    """

    name: str
    field: models.Field[Any, Any]
    codec: Codec

    @cached_property
    def stored(self) -> models.Field[Any, Any]:
        """Return the field that reads and writes the column without conversions of the application."""
        return stored_field(self.field)

    @cached_property
    def is_converted(self) -> bool:
        """Return True if the field of the application converts between the column and the attribute."""
        return self.stored is not self.field

    @cached_property
    def selection(self) -> Any:
        """Return what ``values_list()`` selects for the stored value: a column name or an expression."""
        name = self.field.attname
        return StoredColumn(name, self.stored) if self.is_converted else name

    @cached_property
    def is_plain(self) -> bool:
        """Return True if the attribute of an instance is the stored value, and the database stores what it is given."""
        field = self.field
        if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
            return False  # a write replaces the value by the present time
        attribute = getattr_static(field.model, field.attname, None)
        own = isinstance(attribute, DeferredAttribute) and not isinstance(field, models.FileField)
        return own and not self.is_converted and not may_alter(field)

    def text(self, value: Any) -> Text:
        """Return the text of the stored ``value``; ``None`` for null."""
        return None if value is None else self.codec.to_text(value)

    def read(self, text: Text) -> Any:
        """Return the stored value for ``text``.

        Raises:
            ValueError: ``text`` is not a value of the field; the message tells what was expected and received.
        """
        if text is not None:
            return self.codec.to_python(text)
        if isinstance(self.field, models.JSONField) and not self.field.null:
            return JSON_NULL  # because the column accepts no SQL null
        return None

    def attribute(self, value: Any) -> Any:
        """Return the attribute of an instance for the stored ``value``."""
        return value if value is None or not self.is_converted else attribute_value(self.field, value)

    def stored_value(self, attribute: Any) -> Any:
        """Return the stored value for an ``attribute`` of an instance."""
        return attribute if attribute is None or not self.is_converted else stored_value(self.field, attribute)

    def written(self, value: Any) -> Any:
        """Return what ``update()`` is given so that the column holds the stored ``value``."""
        if value is None or not self.is_converted or isinstance(value, models.Value):
            return value
        return models.Value(value, self.stored)

    @cached_property
    def default_text(self) -> Text:
        """Return the text of the default of the field; ``None`` if it has none or one that cannot be encoded."""
        try:
            return self.text(self.stored_value(self.field.get_default()))
        except Exception:  # a default is the application's: it may be anything, and no row has it yet
            return None


class Kind:
    """Hold everything that the engine computes, once, from the ``SyncResource`` of one registered model.

    ``declared`` is that ``SyncResource``. ``name`` is the name in the URL. A list of children has a ``Kind`` of its
    own, with ``is_inside`` set and a name like ``salesOrders.orderLines``. ``registered_parents`` are the parent models
    in multi-table inheritance that are registered too, the nearest first: their columns travel with their own kinds.
    """

    def __init__(
        self,
        model: type[models.Model],
        declared: type[SyncResource] = SyncResource,
        *,
        inside: str = "",
        registered_parents: tuple[type[models.Model], ...] = (),
    ) -> None:
        self.model = model
        self.registered_parents = registered_parents
        self.declared = declared(model)
        name = camel_case(model.__name__)
        self.is_inside = bool(inside)
        self.name = inside or self.declared.path or plural(name)
        self.element_name = self.declared.element or name
        self.namespace = self.declared.namespace
        self._tags: dict[str, dict[str, ResourceProperty | Relation]] = {}

    @property
    def is_source(self) -> bool:
        """Return True if other nodes may have this node's changes of the kind."""
        return self.declared.is_source

    @property
    def is_target(self) -> bool:
        """Return True if this node accepts changes of the kind from other nodes."""
        return self.declared.is_target

    @property
    def is_filtered(self) -> bool:
        """Return True if different peers may have different rows."""
        return type(self.declared).queryset_for is not SyncResource.queryset_for

    @property
    def decides_itself(self) -> bool:
        """Return True if the application decides conflicts with ``SyncResource.resolve``."""
        return type(self.declared).resolve is not SyncResource.resolve

    @property
    def may_find_duplicates(self) -> bool:
        """Return True if a received row may be matched with another row as its duplicate."""
        declared = self.declared
        return declared.on_duplicate == "link" or type(declared).find_duplicate is not SyncResource.find_duplicate

    def __repr__(self) -> str:
        return f"<{type(self.declared).__name__} {self.name} of {self.model._meta.label}>"

    @property
    def endpoint(self) -> str:
        """Return the URL of this collection at this node, which is its identity."""
        return f"{conf.base_url}/{self.name}"

    @property
    def priority(self) -> int:
        """Return the conflict priority: the declared one, else that of the settings."""
        return conf.conflict_priority if self.declared.conflict_priority is None else self.declared.conflict_priority

    @property
    def database(self) -> str:
        """Return the alias of the database of the rows and of their ``TrackedResource`` rows."""
        return router.db_for_write(self.model)

    @cached_property
    def model_fields(self) -> list[models.Field[Any, Any]]:
        """Return the model fields that are sent in payloads.

        Raises:
            FieldDoesNotExist: ``fields`` or ``exclude`` names a field that the model does not have, or both are given.
        """
        meta = self.model._meta
        if self.declared.fields is None:
            for name in self.declared.exclude:
                meta.get_field(name)
            every = [*filter(self._travels, meta.concrete_fields), *_generic_references(self.model)]
            return [field for field in every if field.name not in self.declared.exclude or field is self.parent_link]
        if self.declared.exclude:
            raise FieldDoesNotExist(f"{meta.label}: expected `fields` or `exclude`, found both; remove one of them.")
        chosen = [meta.get_field(name) for name in self.declared.fields]
        for field in chosen:
            is_kept = isinstance(field, models.Field) and (field.concrete or field.many_to_many)
            if not (is_kept or _is_generic(field)):
                raise FieldDoesNotExist(f"{meta.label}.{field.name} is not a column of the model's table.")
        if self.parent_link is not None and self.parent_link not in chosen:
            chosen.append(self.parent_link)
        return chosen  # type: ignore[return-value]

    @cached_property
    def parent_link(self) -> models.Field[Any, Any] | None:
        """Return the link to the nearest registered parent, which travels as a reference; ``None`` without one."""
        for field in self.model._meta.concrete_fields:
            is_link = getattr(field.remote_field, "parent_link", False)
            if is_link and self.registered_parents[:1] == (field.remote_field.model,):  # type: ignore[union-attr]
                return field
        return None

    @cached_property
    def models_of_parents(self) -> set[type[models.Model]]:
        """Return the models whose columns travel with the kinds of ``registered_parents``."""
        return {model for parent in self.registered_parents for model in (parent, *parent._meta.get_parent_list())}

    def _travels(self, field: models.Field[Any, Any]) -> bool:
        if field is self.parent_link or field.model in self.models_of_parents:
            return field is self.parent_link
        parts = {name for generic in _generic_references(self.model) for name in (generic.ct_field, generic.fk_field)}
        is_link = field.name == self.parent_name or getattr(field.remote_field, "parent_link", False)
        is_local_key = field.primary_key and is_made_by_database(field)
        return not (is_link or is_local_key or field.name in parts or getattr(field, "generated", False))

    @cached_property
    def key_field(self) -> models.Field[Any, Any]:
        """Return the field that holds the primary key: that of the topmost parent model, if the model has parents.

        It is the link to the parent, if the parent is registered.
        """
        if self.parent_link is not None:
            return self.parent_link
        pk: Any = self.model._meta.pk
        while pk.remote_field is not None and pk.remote_field.parent_link:
            pk = pk.target_field
        return pk  # type: ignore[no-any-return]

    @cached_property
    def key_columns(self) -> tuple[str, ...]:
        """Return the columns of the primary key: several for a composite one."""
        return tuple(part.attname for part in key_parts(self.key_field))

    @cached_property
    def brings_keys(self) -> bool:
        """Return True if received rows bring their primary key, so that it is the key of the row at every node."""
        return set(self.key_columns) <= set(self.columns)

    @cached_property
    def parent_name(self) -> str:
        """Return the name of a child's foreign key to its parent; the parent sets it."""
        return self.declared.parent

    @cached_property
    def properties(self) -> tuple[ResourceProperty, ...]:
        """Return the plain properties of the payload, in their order.

        A field without a codec is left out; the system checks report it.
        """
        return tuple(
            ResourceProperty(self.name_of(field), field, codec)
            for field in self.model_fields
            if not field.is_relation and (codec := codec_of(field)) is not None
        )

    @cached_property
    def relations(self) -> tuple[Relation, ...]:
        """Return the properties that refer to other rows; they follow the plain properties in the payload."""
        related = [self._relation(field) for field in self.model_fields if field.is_relation]
        return (*related, *(self._children(name, child) for name, child in self.declared.children.items()))

    @property
    def property_names(self) -> list[str]:
        """Return the names of the properties and relations, in the order of a resource's content."""
        return [*(prop.name for prop in self.properties), *(relation.name for relation in self.relations)]

    @cached_property
    def child_lists(self) -> tuple[Children, ...]:
        """Return the lists of children among the relations."""
        return tuple(relation for relation in self.relations if isinstance(relation, Children))

    def _relation(self, field: models.Field[Any, Any]) -> Relation:
        name = self.name_of(field)
        if _is_generic(field):
            return GenericReference(name=name, field=field, model=self.model)  # type: ignore[arg-type]
        if isinstance(field, models.ManyToManyField):
            related: Any = field.related_model
            return Association(name=name, field=field, element=camel_case(related.__name__))
        return Reference(name=name, field=field)  # type: ignore[arg-type]

    def _children(self, name: str, child: type[SyncResource]) -> Children:
        if getattr(child, "model", None) is None:
            raise FieldDoesNotExist(f"{child.__name__} has no model; set its attribute `model`.")
        kind = Kind(child.model, child, inside=f"{self.name}.{name}")
        link = self._link(child)
        kind.parent_name = link.name
        kind.namespace = self.namespace  # the elements of the children are inside the element of the parent
        return Children(name=name, kind=kind, link=link)

    def _link(self, child: type[SyncResource]) -> models.ForeignKey[Any, Any]:
        lineage = (self.model, *self.model._meta.get_parent_list())
        links = [
            field
            for field in child.model._meta.concrete_fields
            if isinstance(field, models.ForeignKey)
            and field.related_model in lineage
            and (not child.parent or field.name == child.parent)
        ]
        if len(links) != 1:
            raise FieldDoesNotExist(
                f"{child.model._meta.label} has {len(links)} foreign keys to {self.model._meta.label}; name the one "
                "that makes it a child in `parent`."
            )
        return links[0]

    def name_of(self, field: models.Field[Any, Any]) -> str:
        """Return the name of ``field`` in the payload."""
        return self.declared.field_names.get(field.name) or camel_case(field.name)

    def _by_tag(self, namespace: str) -> dict[str, ResourceProperty | Relation]:
        """Return the properties by the tags that their elements may have in a payload of ``namespace``."""
        known = self._tags.get(namespace)
        if known is None:
            spaces = (f"{{{namespace}}}" if namespace else "", f"{{{self.namespace}}}", "")
            every: tuple[ResourceProperty | Relation, ...] = (*self.properties, *self.relations)
            known = {f"{space}{prop.name}": prop for space in spaces for prop in every}
            if len(self._tags) < 100:  # peers choose the namespaces, so the cache must be limited
                self._tags[namespace] = known
        return known

    @cached_property
    def selection(self) -> tuple[Any, ...]:
        """Return what ``values_list()`` selects for the stored values of ``columns``: names and expressions."""
        return (*(prop.selection for prop in self.properties), *self.relation_columns)

    @cached_property
    def by_column(self) -> dict[str, ResourceProperty]:
        """Return the plain properties by the name of their column."""
        return {prop.field.attname: prop for prop in self.properties}

    @cached_property
    def converters(self) -> dict[str, Callable[[Any], Any]]:
        """Return, by column, how a stored value becomes an attribute of an instance, where the two differ."""
        return {prop.field.attname: prop.attribute for prop in self.properties if prop.is_converted}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns: those of the properties in their order, then those of the relations."""
        return (*(prop.field.attname for prop in self.properties), *self.relation_columns)

    @cached_property
    def relation_columns(self) -> tuple[str, ...]:
        """Return the columns that hold the relations, in their order."""
        return tuple(column for relation in self.relations for column in relation.columns)

    @cached_property
    def template(self) -> PayloadTemplate:
        """Return the template that renders the payloads of this kind."""
        namespace = "" if self.is_inside else self.namespace
        return PayloadTemplate.of(self.element_name, namespace, tuple(prop.name for prop in self.properties))

    def rows(self) -> models.QuerySet[Any]:
        """Return all rows, without the model's managers, which may hide rows or capture writes."""
        return all_rows(self.model, self.database)

    def resource_url(self, key: str) -> str:
        """Return the URL of the resource with the local key ``key`` (SData core 2.7)."""
        return f"{self.endpoint}('{_quoted(key)}')"

    def operation_url(self, role: str, tracking_id: str) -> str:
        """Return the URL of the operation ``tracking_id`` of ``$syncSource`` or ``$syncTarget`` (SData sync 4.1)."""
        return f"{self.endpoint}/${role}('{_quoted(tracking_id)}')"

    def encode(self, values: Iterable[Any]) -> list[Text]:
        """Return the field texts of the plain properties for ``values`` in the order of ``columns``; null is ``None``.

        In a resource's content they are followed by the texts of the relations, which ``sdata_sync.sync.content`` adds.
        """
        return [None if value is None else to_text(value) for to_text, value in zip(self._writers, values)]  # noqa: B905

    @cached_property
    def _writers(self) -> tuple[Callable[[Any], str], ...]:
        return tuple(prop.codec.to_text for prop in self.properties)

    def encode_after(self, reading: Reading, present: Sequence[Text] | None) -> list[Text]:
        """Return the field texts of the plain properties of a row after ``reading`` is applied to it.

        ``present`` is the content of the row, ``None`` for a new row, which has the defaults of the model.

        Raises:
            ValueError: a value of ``reading`` cannot be encoded.
        """
        values = reading.values
        return [
            prop.text(values[prop.field.attname])
            if prop.field.attname in values
            else (prop.default_text if present is None else present[position])
            for position, prop in enumerate(self.properties)
        ]

    @cached_property
    def is_plain(self) -> bool:
        """Return True if the columns of the plain properties can be read from the attributes of a written instance."""
        return all(prop.is_plain for prop in self.properties)

    def values_of(self, instance: models.Model) -> list[Any]:
        """Return the values of ``instance`` in the order of ``columns``; the kind is plain."""
        stored = instance.__dict__
        return [stored[name] if name in stored else getattr(instance, name) for name in self.columns]

    def stored_values(self, attributes: Mapping[str, Any], *, is_new: bool) -> dict[str, Any]:
        """Return the stored values for ``attributes`` by column; the primary key of a row never changes."""
        keys = {self.model._meta.pk.attname, *self.key_columns}
        return {
            name: self.by_column[name].stored_value(value) if name in self.by_column else value
            for name, value in attributes.items()
            if is_new or name not in keys
        }

    def render(self, attributes: str, contents: Sequence[Text], extra: str = "", keys: Keys = NO_KEYS) -> str:
        """Return the payload of a resource with ``contents``: the texts of its properties and relations.

        Raises:
            UnrepresentableText: a text has a character that XML forbids.
        """
        if not self.relations:
            return self.template.render(attributes, contents, extra)
        plain = len(self.properties)
        related = [
            # A relation that cannot be rendered is left out: the reader then keeps the present value.
            "" if relation.problem(text) else relation.render(text, keys)
            for relation, text in zip(self.relations, contents[plain:], strict=True)
        ]
        return self.template.render(attributes, contents[:plain], "".join(related) + extra)

    @staticmethod
    def etag(texts: Sequence[Text], extra: str = "") -> str:
        """Return a hash of a resource's content: its field texts, and the stored XML of elements not known here."""
        # No text that XML can hold contains one of the separators.
        content = "\x03".join(["\x01" if text is None else text for text in texts])
        return blake2b(f"{content}\x02{extra}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def decode(self, payload: Payload, within: str = "") -> Reading:
        """Return the properties and relations that ``payload`` contains, and the XML of elements not known here.

        ``within`` is the path of the parent element, for error messages.

        Raises:
            PayloadError: the payload is of another element, or the value of an element does not fit its field.
        """
        if fold(payload.name) != fold(self.element_name):
            raise PayloadError(f"Expected a payload of <{self.element_name}>, received <{payload.name}>.")
        values: dict[str, Any] = {}
        related: dict[str, Received] = {}
        unknown: list[str] = []
        known = self._by_tag(payload.namespace)
        for item in payload:
            prop = known.get(item.tag)
            try:
                if type(prop) is ResourceProperty:
                    if not item.is_plain:
                        raise ValueError("expected text, received elements")
                    values[prop.field.attname] = prop.read(item.text)
                elif prop is None:
                    unknown.append(item.xml())
                else:
                    related[prop.name] = prop.read(item)  # type: ignore[arg-type]
            except ValueError as error:
                path = f"{within}{self.element_name}/{item.name}"
                raise PayloadError(f"In {path}: {error}.", payload_path=path) from error
            except PayloadError as error:
                path = f"{within}{self.element_name}/{error.payload_path}"
                raise PayloadError(str(error), payload_path=path) from error
        return Reading(values, "".join(unknown), related)


def key_parts(pk: models.Field[Any, Any]) -> list[models.Field[Any, Any]]:
    """Return the fields of the primary key ``pk``: several for a composite one."""
    return list(getattr(pk, "fields", [pk]))


def is_made_by_database(field: models.Field[Any, Any]) -> bool:
    """Return True if the database makes the primary key ``field`` of a new row, so that each node has its own keys."""
    return isinstance(field, models.AutoField) or field.has_db_default()


def _is_generic(field: Any) -> bool:
    # Not by its class, which a project without content types cannot import.
    return hasattr(field, "ct_field") and hasattr(field, "fk_field")


def _generic_references(model: type[models.Model]) -> list[Any]:
    return [field for field in model._meta.private_fields if _is_generic(field)]


def _quoted(key: str) -> str:
    if key.isascii() and key.isalnum():
        return key
    return quote(key.replace("'", "''"), safe="':@,;+")
