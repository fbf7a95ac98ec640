"""Read the resource kinds of an XML schema with SData metadata (SData core 4)."""

from collections.abc import Iterator
from typing import BinaryIO

from lxml import etree

from . import names
from .document import read_root


def _xs(tag: str) -> str:
    return f"{{{names.XS}}}{tag}"


def read_schema(file: BinaryIO) -> dict[str, frozenset[str]]:
    """Return the names of the properties of each resource kind, by the name of its element.

    An element whose type the schema does not define is left out.

    Raises:
        DocumentError: the document is not XML, has a DOCTYPE or is nested too deeply.
    """
    root = read_root(file)
    types = {name: defined for defined in root.iterfind(_xs("complexType")) if (name := defined.get("name"))}
    kinds = {}
    for element in root.iterfind(_xs("element")):
        defined = element.find(_xs("complexType"))
        if defined is None:
            defined = types.get((element.get("type") or "").rpartition(":")[2])
        if defined is not None and (name := element.get("name")):
            kinds[name] = frozenset(_properties(defined))
    return kinds


def _properties(defined: etree._Element) -> Iterator[str]:
    for group in ("all", "sequence", "choice"):
        for element in defined.iterfind(f"{_xs(group)}/{_xs('element')}"):
            if name := element.get("name"):
                yield name
