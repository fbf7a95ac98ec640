"""The contract's element inside an entry: a resource with its properties."""

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

#: The content of one property: its text, or ``None`` for a null (``xsi:nil="true"``).
Text = str | None


class Payload:
    """A resource as it came: one element of the contract's namespace, or of none."""

    __slots__ = ("_element",)

    def __init__(self, element: etree._Element) -> None:
        self._element = element

    @property
    def name(self) -> str:
        """The local name of the element, ``account`` for instance."""
        return names.local_name(self._element.tag)

    def __iter__(self) -> Iterator[Property]:
        """Yield the properties in the order in which they stand."""
        for element in self._element:
            if isinstance(element.tag, str):
                yield Property(element)

    @property
    def namespace(self) -> str:
        """The namespace of the element, empty if it has none."""
        return names.namespace(self._element.tag)

    def xml(self, *, uuid: str) -> str:
        """Return the element as text that can be put into another document, with its ``uuid`` on it.

        It may have stood elsewhere; whoever reads the text alone must find it.
        """
        element = deepcopy(self._element)
        element.set(names.UUID, uuid)
        return _as_text(element)

    @classmethod
    def from_xml(cls, text: str) -> Payload:
        """Read what ``xml`` returned and was kept."""
        return cls(etree.fromstring(text.encode()))


class Property:
    """One child of a payload's element."""

    __slots__ = ("_element", "tag")

    def __init__(self, element: etree._Element) -> None:
        self._element = element
        #: The name with its namespace, as ``{namespace}name``.
        self.tag: str = element.tag

    @property
    def name(self) -> str:
        """The local name of the element."""
        return names.local_name(self.tag)

    def __iter__(self) -> Iterator[Property]:
        """Yield the elements inside, of a list for instance."""
        for element in self._element:
            if isinstance(element.tag, str):
                yield Property(element)

    @property
    def is_plain(self) -> bool:
        """Whether it is text or null, without elements of its own."""
        return len(self._element) == 0

    @property
    def is_nil(self) -> bool:
        """Whether it says that it is null."""
        return is_true(self._element.get(names.NIL) or self._element.get("nil"))

    def attribute(self, name: str, namespace: str = names.SDATA) -> str | None:
        """Return an attribute, also where it stands in the sync namespace or in none."""
        return attribute(self._element, name, namespace)

    def flag(self, name: str) -> bool:
        """Tell whether an attribute says true."""
        return is_true(self.attribute(name))

    def as_payload(self) -> Payload:
        """Return the element as a resource of its own: a child inside its parent."""
        return Payload(self._element)

    @property
    def text(self) -> Text:
        """The text, or ``None`` for a null. An empty element without ``xsi:nil`` is the empty text."""
        if self._element.attrib:
            nil = self._element.get(names.NIL) or self._element.get("nil") or ""
            if nil.strip() in ("true", "1"):
                return None
        return self._element.text or ""

    def xml(self) -> str:
        """Return the element as text that can be put into another document."""
        return _as_text(self._element)


def attribute(element: etree._Element, name: str, namespace: str = names.SDATA) -> str | None:
    """Return an attribute that is written in ``namespace``, but also met in the sync namespace or in none."""
    attributes = element.attrib
    if not attributes:
        return None
    for spelled in (f"{{{namespace}}}{name}", f"{{{names.SYNC}}}{name}", name):
        if spelled in attributes:
            return str(attributes[spelled])
    return None


def is_true(text: str | None) -> bool:
    """Tell whether the text of a flag says true."""
    return text is not None and text.strip().lower() in ("true", "1")


def _as_text(element: etree._Element) -> str:
    # Canonical XML says the same the same way at every node, and declares just the namespaces that are used.
    try:
        canonical: bytes = etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
    except etree.C14NError:  # it knows no relative namespaces, which are legal all the same
        return etree.tostring(element, encoding="unicode", with_tail=False)
    return canonical.decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class PayloadTemplate:
    """Writes the payloads of one kind; what they have in common is prepared once."""

    element: str
    start: str
    properties: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, element: str, namespace: str, properties: tuple[str, ...]) -> PayloadTemplate:
        """Prepare for resources that are an ``element`` of ``namespace`` with ``properties``, in that order.

        Without a ``namespace`` they stand inside an element of the same one.
        """
        return cls(
            element=element,
            start=f'<{element} xmlns="{escape_attribute(namespace)}"' if namespace else f"<{element}",
            properties=tuple((f"<{name}>", f"</{name}>", f'<{name} xsi:nil="true"/>') for name in properties),
        )

    def render(self, attributes: str, texts: Sequence[Text], fragments: str = "") -> str:
        """Return the element. ``fragments`` is XML that is sent on as it came.

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
        """Return the element without properties: a deletion, or a resource that is only pointed at."""
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
    """Return the attributes that say which resource an element is, with a leading space.

    ``replaced_by`` is the uuid that a deleted one has now: it was not deleted, but goes by another name. ``scoped``
    says that it was not changed, but came into what the receiver may have, or left it. ``withdrawn`` says of a deleted
    one that it left it, changed or not.
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
