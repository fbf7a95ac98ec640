"""Read and write the contract's element inside an entry: a resource with its properties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from uuid import UUID

from lxml import etree

from . import names
from .text import escape, escape_attribute, is_representable

etree.register_namespace("sdata", names.SDATA)
etree.register_namespace("dss", names.OWN)

#: The content of one property: its text, or ``None`` for null (``xsi:nil="true"``).
Text = str | None


class Payload:
    """Wrap a received resource: one element of the contract's namespace, or of no namespace."""

    __slots__ = ("_element",)

    def __init__(self, element: etree._Element) -> None:
        self._element = element

    @property
    def name(self) -> str:
        """Return the local name of the element, for example ``account``."""
        return names.local_name(self._element.tag)

    def __iter__(self) -> Iterator[Property]:
        """Yield the properties in document order."""
        for element in self._element:
            if isinstance(element.tag, str):
                yield Property(element)

    @property
    def namespace(self) -> str:
        """Return the namespace of the element, or the empty text if it has none."""
        return names.namespace(self._element.tag)

    def xml(self, *, uuid: str) -> str:
        """Return the element as text that can be inserted into another document, with ``uuid`` as its uuid.

        The uuid is set because it may have been received outside the element, where the text alone would not contain
        it.
        """
        element = deepcopy(self._element)
        element.set(names.UUID, uuid)
        return _as_text(element)

    @classmethod
    def from_xml(cls, text: str) -> Payload:
        """Parse a text that ``xml`` returned."""
        return cls(etree.fromstring(text.encode()))


class Property:
    """Wrap one child of a payload's element."""

    __slots__ = ("_element", "tag")

    def __init__(self, element: etree._Element) -> None:
        self._element = element
        #: The qualified name, as ``{namespace}name``.
        self.tag: str = element.tag

    @property
    def name(self) -> str:
        """Return the local name of the element."""
        return names.local_name(self.tag)

    def __iter__(self) -> Iterator[Property]:
        """Yield the child elements, for example the items of a list."""
        for element in self._element:
            if isinstance(element.tag, str):
                yield Property(element)

    @property
    def is_plain(self) -> bool:
        """Return True if the element has no child elements: it is text or null."""
        return len(self._element) == 0

    @property
    def is_nil(self) -> bool:
        """Return True if the element has ``xsi:nil="true"``."""
        return is_true(self._element.get(names.NIL) or self._element.get("nil"))

    def attribute(self, name: str, namespace: str = names.SDATA) -> str | None:
        """Return an attribute in ``namespace``, in the sync namespace or in no namespace, or ``None``."""
        return attribute(self._element, name, namespace)

    def flag(self, name: str) -> bool:
        """Return True if the attribute ``name`` has the value true."""
        return is_true(self.attribute(name))

    def as_payload(self) -> Payload:
        """Return the element as a resource of its own, for a child inside its parent."""
        return Payload(self._element)

    @property
    def text(self) -> Text:
        """Return the text, or ``None`` for null. An empty element without ``xsi:nil`` is the empty text."""
        if self._element.attrib:
            nil = self._element.get(names.NIL) or self._element.get("nil") or ""
            if nil.strip() in ("true", "1"):
                return None
        return self._element.text or ""

    def xml(self) -> str:
        """Return the element as text that can be inserted into another document."""
        return _as_text(self._element)


def attribute(element: etree._Element, name: str, namespace: str = names.SDATA) -> str | None:
    """Return an attribute in ``namespace``, in the sync namespace or in no namespace, or ``None``."""
    attributes = element.attrib
    if not attributes:
        return None
    for spelled in (f"{{{namespace}}}{name}", f"{{{names.SYNC}}}{name}", name):
        if spelled in attributes:
            return str(attributes[spelled])
    return None


def is_true(text: str | None) -> bool:
    """Return True if the text of a flag is ``true`` or ``1``, ignoring case."""
    return text is not None and text.strip().lower() in ("true", "1")


def _as_text(element: etree._Element) -> str:
    # Canonical XML is the same text at every node, and declares only the namespaces that are used.
    try:
        canonical: bytes = etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
    except etree.C14NError:  # canonical XML does not support relative namespaces, which are legal
        return etree.tostring(element, encoding="unicode", with_tail=False)
    return canonical.decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class PayloadTemplate:
    """Write the payloads of one kind, with their common parts prepared once."""

    element: str
    start: str
    properties: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, element: str, namespace: str, properties: tuple[str, ...]) -> PayloadTemplate:
        """Prepare a template for an ``element`` of ``namespace`` with ``properties``, in that order.

        With an empty ``namespace`` the element inherits the namespace of the enclosing element.
        """
        return cls(
            element=element,
            start=f'<{element} xmlns="{escape_attribute(namespace)}"' if namespace else f"<{element}",
            properties=tuple((f"<{name}>", f"</{name}>", f'<{name} xsi:nil="true"/>') for name in properties),
        )

    def render(self, attributes: str, texts: Sequence[Text], fragments: str = "") -> str:
        """Return the element as text.

        Args:
            attributes: the attributes as text with a leading space, from ``identity()``.
            texts: one text or ``None`` per property of the template.
            fragments: XML that is sent unchanged after the properties.

        Raises:
            UnrepresentableText: a text has a character that XML forbids.
        """
        parts = [self.start, attributes, ">"]
        for (start, end, null), text in zip(self.properties, texts, strict=True):
            parts.append(null if text is None else f"{start}{escape(text)}{end}")
        parts.append(fragments)
        parts.append(f"</{self.element}>")
        return "".join(parts)

    def render_empty(self, attributes: str) -> str:
        """Return the element without properties, for a deletion or a reference."""
        return f"{self.start}{attributes}/>"


def identity(
    *,
    uuid: str,
    key: str | None = None,
    url: str = "",
    deleted: bool = False,
    replaced_by: UUID | None = None,
    scoped: bool = False,
    withdrawn: bool = False,
) -> str:
    """Return the attributes that identify a resource as text, with a leading space.

    Args:
        uuid: the uuid of the resource.
        key: the local key; left out with ``url`` if it is ``None`` or XML cannot represent it.
        url: the URL of the resource at this node.
        deleted: whether the resource is deleted.
        replaced_by: for a deleted uuid that is an alias, the uuid under which the resource lives on.
        scoped: whether the resource was not changed, but entered or left the receiver's partial replica.
        withdrawn: whether a deleted resource only left the receiver's partial replica, changed or not.
    """
    flag = ' sdata:isDeleted="true"' if deleted else ""
    if scoped:
        flag += ' dss:scoped="true"'
    if withdrawn:
        flag += ' dss:withdrawn="true"'
    if replaced_by is not None:
        flag += f' dss:replacedBy="{replaced_by}"'
    if key is None or not is_representable(key):
        return f' sdata:uuid="{uuid}"{flag}'
    address = escape_attribute(url)
    return f' sdata:uuid="{uuid}" sdata:key="{escape_attribute(key)}" sdata:url="{address}" sdata:uri="{address}"{flag}'
