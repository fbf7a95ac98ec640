"""Serve ``$schema``, the XML schema with SData metadata (SData core 4, SData sync 4.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.db import models
from django.http import HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from lxml import etree
from rest_framework.request import Request

from ...atom.names import SME, XS
from ...conf import conf
from ...registry import registry
from ...relations import Association, Children, GenericReference, Reference, Relation
from ..errors import UrlNotFound
from ..parsers import DigestParser
from ..permissions import READ_FEEDS
from ..renderers import EntryRenderer
from .base import SDataView, query_of

if TYPE_CHECKING:
    from ...kind import Kind, ResourceProperty

#: The XSD type by field class; the first match is used, in the order of ``sdata_sync.fields``.
_TYPES: tuple[tuple[type[models.Field[Any, Any]], str], ...] = (
    (models.BooleanField, "boolean"),
    (models.IntegerField, "integer"),
    (models.FloatField, "double"),
    (models.DecimalField, "decimal"),
    (models.DateTimeField, "dateTime"),
    (models.DateField, "date"),
    (models.TimeField, "time"),
    (models.DurationField, "duration"),
    (models.BinaryField, "base64Binary"),
)


def render_schema(namespace: str) -> bytes:
    """Return the schema of the kinds of one contract's namespace."""
    return _Schema(namespace).render()


class _Schema:
    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._others = [space for space in _namespaces() if space != namespace]
        prefixes = {"tns": namespace, "xs": XS, "sme": SME}
        prefixes.update((f"n{number}", space) for number, space in enumerate(self._others, start=1))
        self._nsmap = prefixes
        self._described: set[str] = set()
        self._prefixes = {space: prefix for prefix, space in prefixes.items()}

    def _xs(self, tag: str, /, *children: etree._Element, **attributes: str) -> etree._Element:
        element = etree.Element(f"{{{XS}}}{tag}", attributes, nsmap=self._nsmap)
        element.extend(children)
        return element

    def render(self) -> bytes:
        root = self._xs("schema", targetNamespace=self._namespace, elementFormDefault="qualified", version="1.0")
        for other in self._others:
            address = f"{conf.base_url}/$schema?namespace={other}"
            root.append(self._xs("import", namespace=other, schemaLocation=address))
        root.append(self._reference_type())
        orders = registry.orders()
        for kind in registry:
            if kind.namespace == self._namespace:
                root.append(self._kind(kind, orders[kind.model]))
                root.extend(self._types(kind))
        content: bytes = etree.tostring(root, xml_declaration=True, encoding="utf-8", pretty_print=True)
        return content

    def _kind(self, kind: Kind, order: int) -> etree._Element:
        name = kind.element_name
        element = self._xs("element", name=name, type=f"tns:{name}--type")
        _annotate(
            element,
            role="resourceKind",
            pluralName=kind.name,
            label=_label(kind.model._meta.verbose_name),
            canGet="true",
            canPost="false",
            canPut="false",
            canDelete="false",
            canPageNext="true",
            canPageIndex="true",
            hasUuid="true",
            supportsETag="true",
            isSyncSource=_flag(kind.is_source),
            isSyncTarget=_flag(kind.is_target),
            syncConflictPriority=str(kind.priority),
            syncOrder=str(order),
        )
        return element

    def _types(self, kind: Kind) -> Iterator[etree._Element]:
        name = kind.element_name
        if name in self._described:  # a class of children can be in two parents
            return
        self._described.add(name)
        properties = [*map(self._property, kind.properties), *map(self._relation, kind.relations)]
        yield self._xs("complexType", self._xs("all", *properties), self._attributes(), name=f"{name}--type")
        item = self._xs("element", name=name, type=f"tns:{name}--type", minOccurs="0", maxOccurs="unbounded")
        yield self._xs("complexType", self._xs("sequence", item), self._attributes(), name=f"{name}--list")
        for children in kind.child_lists:
            yield from self._types(children.kind)

    def _attributes(self) -> etree._Element:
        # Allows sdata:uuid, sdata:key and so on without importing the schema of their namespace.
        return self._xs("anyAttribute", namespace="##other", processContents="lax")

    def _reference_type(self) -> etree._Element:
        return self._xs("complexType", self._attributes(), name="reference--type")

    def _property(self, prop: ResourceProperty) -> etree._Element:
        field = prop.field
        base = next((name for kind, name in _TYPES if isinstance(field, kind)), "string")
        element = self._xs("element", name=prop.name, type=f"xs:{base}", minOccurs="0")
        if field.null:
            element.set("nillable", "true")
        _annotate(element, label=_label(field.verbose_name))
        if not (field.null or field.blank or field.has_default()):
            _annotate(element, isMandatory="true")
        if field.unique:
            _annotate(element, isUniqueKey="true")
        return element

    def _relation(self, relation: Relation) -> etree._Element:
        element = self._xs("element", name=relation.name, minOccurs="0", nillable="true")
        if isinstance(relation, Association) and registry.of_model(relation.model) is None:
            item = self._xs("element", name=relation.element, type="xs:string", minOccurs="0", maxOccurs="unbounded")
            element.append(self._xs("complexType", self._xs("sequence", item), self._attributes()))
        else:
            element.set("type", self._type_of(relation))
        if isinstance(relation, Children):
            label, kind = relation.kind.model._meta.verbose_name_plural, "child"
        elif isinstance(relation, Association):
            label, kind = relation.field.verbose_name, "association"
        else:
            label, kind = getattr(relation.field, "verbose_name", relation.name), "reference"  # type: ignore[attr-defined]
        is_collection = isinstance(relation, Children | Association)
        _annotate(element, label=_label(label), relationship=kind, isCollection=_flag(is_collection))
        if isinstance(relation, Reference) and not relation.is_nullable:
            _annotate(element, isMandatory="true")
        return element

    def _type_of(self, relation: Relation) -> str:
        if isinstance(relation, Children):
            return f"tns:{relation.kind.element_name}--list"
        if isinstance(relation, GenericReference):
            return "tns:reference--type"
        assert isinstance(relation, Reference | Association)
        target = registry.of_model(relation.model)
        if target is None:
            return "xs:string"  # a natural key
        form = "list" if isinstance(relation, Association) else "type"
        return f"{self._prefixes[target.namespace]}:{target.element_name}--{form}"


def _annotate(element: etree._Element, **what: str) -> None:
    for name, value in what.items():
        element.set(f"{{{SME}}}{name}", value)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _label(text: Any) -> str:
    said = str(text)
    return said[:1].upper() + said[1:]


def _namespaces() -> list[str]:
    return list(dict.fromkeys(kind.namespace for kind in registry))


class DatasetSchemaView(SDataView):
    """Serve ``$schema`` of the dataset for the namespace of the query, by default the first contract's."""

    parser_classes = [DigestParser]
    renderer_classes = [EntryRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate the request before the namespaces are looked up."""
        super(SDataView, self).initial(request, *args, **kwargs)

    def get(self, request: Request, operation: str) -> HttpResponseBase:
        """Answer with the schema of the kinds of the namespace.

        Raises:
            UrlNotFound: no registered kind has the namespace.
        """
        namespaces = _namespaces()
        wanted = query_of(request).get("namespace") or (namespaces[0] if namespaces else "")
        if wanted not in namespaces:
            raise UrlNotFound(f"There is no kind of the namespace {wanted[:200]!r} here.")
        return HttpResponse(render_schema(wanted), content_type="application/xml; charset=utf-8")


class KindSchemaView(SDataView):
    """Serve ``$schema`` of a kind as a redirect into the schema of the dataset."""

    parser_classes = [DigestParser]
    renderer_classes = [EntryRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS}

    def get(self, request: Request, kind: str, operation: str) -> HttpResponseBase:
        """Redirect to the element of the kind in the schema of the dataset."""
        space = self.kind.namespace
        query = "" if space == _namespaces()[0] else f"?namespace={space}"
        return HttpResponseRedirect(f"{conf.base_url}/$schema{query}#{self.kind.element_name}")
