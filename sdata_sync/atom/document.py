"""Parse bytes to elements safely: no DTD, no entities, no network, bounded depth."""

from collections.abc import Iterator
from typing import BinaryIO, cast
from xml.parsers import expat

from lxml import etree

from ..exceptions import DoctypeForbidden, NotXml, TooDeep, TooManyElements
from .body import CHUNK_BYTES

MAX_DEPTH = 100
#: The greatest number of elements and attributes inside one entry.
MAX_ELEMENTS = 100_000
#: The greatest number of attributes of one element. The parser builds the tree of an attribute at once, which takes a
#: hundred times its bytes.
MAX_ATTRIBUTES = 1000
#: What may precede the root element, in bytes: the parser reads an unfinished comment again with each chunk.
_PROLOG_LIMIT = 16 * 1024
#: The greatest size of a tag.
MAX_TAG_BYTES = 256 * 1024


def _nested(levels: int) -> etree.XPath:
    return etree.XPath(f"boolean({'/'.join('*' * levels)})")


_IS_UNUSUALLY_DEEP = _nested(8)
_IS_TOO_DEEP = {within: _nested(MAX_DEPTH - within) for within in (0, 1)}


class _RootReached(Exception):
    pass


def refuse_doctype(file: BinaryIO) -> None:
    """Read ``file`` up to its root element, refuse it if a DOCTYPE precedes the root, and rewind it.

    Call it before lxml reads the file: lxml reports a DTD only after it has processed it.

    Raises:
        DoctypeForbidden: a DOCTYPE precedes the root element.
        NotXml: the document is not well-formed up to its root, or has no root within its first 16 KiB.
    """
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _on_doctype
    parser.StartElementHandler = _on_root
    try:
        read = 0
        while chunk := file.read(2048):
            parser.Parse(chunk, False)
            read += len(chunk)
            if read > _PROLOG_LIMIT:
                raise NotXml(f"Expected a root element within the first {_PROLOG_LIMIT} bytes.")
        parser.Parse(b"", True)
    except _RootReached:
        pass
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise NotXml(f"The body is not well-formed XML: {error}.") from error
    file.seek(0)


def _on_doctype(*args: object) -> None:
    raise DoctypeForbidden


def _on_root(*args: object) -> None:
    raise _RootReached


def check_attributes(file: BinaryIO) -> None:
    """Refuse ``file`` if an element has more than ``MAX_ATTRIBUTES`` attributes, and rewind it.

    Raises:
        TooManyElements: an element has too many attributes.
        NotXml: the document is not well-formed, as far as it had to be read to find out.
    """
    may_have_many, carried, unclosed = False, 0, 0
    while chunk := file.read(CHUNK_BYTES):
        unclosed = _unclosed_bytes(chunk, unclosed)
        if unclosed > MAX_TAG_BYTES:
            raise TooManyElements(f"Expected a tag of at most {MAX_TAG_BYTES} bytes.")
        if may_have_many:
            continue
        # A tag ends before the next "<" and has one "=" for each attribute; the text after it may have some too.
        pieces = chunk.split(b"<") if carried + chunk.count(b"=") > MAX_ATTRIBUTES else ()
        may_have_many = any(
            (carried if number == 0 else 0) + piece.count(b"=") > MAX_ATTRIBUTES for number, piece in enumerate(pieces)
        )
        begin = chunk.rfind(b"<")
        carried = carried + chunk.count(b"=") if begin < 0 else chunk.count(b"=", begin)
    file.seek(0)
    if may_have_many:
        _count_attributes(file)


def _unclosed_bytes(chunk: bytes, before: int) -> int:
    """Return how many bytes of a tag without its end precede the end of ``chunk``, of which ``before`` precede it."""
    begin, end = chunk.rfind(b"<"), chunk.rfind(b">")
    if begin > end:
        return 0 if chunk[begin + 1 : begin + 2] == b"!" else len(chunk) - begin  # not of a comment or of CDATA
    return before + len(chunk) if before and end < 0 else 0


def _count_attributes(file: BinaryIO) -> None:
    parser = expat.ParserCreate()
    parser.ordered_attributes = True
    parser.StartElementHandler = _on_element
    try:
        parser.ParseFile(file)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise NotXml(f"The body is not well-formed XML: {error}.") from error
    file.seek(0)


def _on_element(name: str, attributes: list[str]) -> None:
    if len(attributes) > 2 * MAX_ATTRIBUTES:
        raise TooManyElements(f"Expected at most {MAX_ATTRIBUTES} attributes of an element.")


def read_root(file: BinaryIO) -> etree._Element:
    """Return the root element of a small document, for example of a digest.

    Raises:
        DoctypeForbidden: the document has a DOCTYPE.
        NotXml: the document is not well-formed XML.
        TooDeep: elements are nested more than 100 deep.
        TooManyElements: an element has more than ``MAX_ATTRIBUTES`` attributes.
    """
    refuse_doctype(file)
    check_attributes(file)
    try:
        root = etree.parse(file, _parser()).getroot()
    except etree.XMLSyntaxError as error:
        raise NotXml(f"The body is not well-formed XML: {error}.") from error
    check_depth(root, within=0)
    return root


def _parser() -> etree.XMLParser:
    # resolve_entities keeps its default: False would drop text silently, and without a DTD there are no entities.
    return etree.XMLParser(no_network=True, huge_tree=False, remove_comments=True, remove_pis=True)


def read_elements(file: BinaryIO, *tags: str) -> Iterator[etree._Element]:
    """Yield each element with one of ``tags`` as soon as it is complete, and the root as the last element.

    Elements that the caller removes from the tree are freed, so that memory does not grow with the document.

    Raises:
        DoctypeForbidden: the document has a DOCTYPE.
        NotXml: the document is not well-formed XML.
        TooDeep: elements are nested more than 100 deep.
        TooManyElements: an element with one of ``tags`` has more than ``MAX_ELEMENTS`` elements and attributes inside,
            or an element has more than ``MAX_ATTRIBUTES`` attributes.
    """
    refuse_doctype(file)
    check_attributes(file)
    parser = etree.XMLPullParser(
        events=("start", "end"), tag=tags, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True
    )
    counter = _ElementCounter()
    try:
        while chunk := file.read(CHUNK_BYTES):
            parser.feed(chunk)
            yield from _completed(parser, counter)
            counter.count(chunk)
        root = parser.close()
    except etree.XMLSyntaxError as error:
        raise NotXml(f"The body is not well-formed XML: {error}.") from error
    yield from _completed(parser, counter)
    check_depth(root, within=0)
    yield root


class _ElementCounter:
    """Refuse an element with more than ``MAX_ELEMENTS`` elements and attributes inside, before it is complete."""

    def __init__(self) -> None:
        self._open: etree._Element | None = None
        self._tags = 0

    def begin(self, element: etree._Element) -> None:
        """Start to count at ``element``, unless an enclosing element is being counted already."""
        if self._open is None:
            self._open, self._tags = element, 0

    def end(self, element: etree._Element) -> None:
        """Stop counting if ``element`` is the one that is being counted."""
        if element is self._open:
            self._open, self._tags = None, 0

    def count(self, chunk: bytes) -> None:
        """Count the elements and attributes of ``chunk``, which the parser has already read.

        Raises:
            TooManyElements: the element that is being counted has more than ``MAX_ELEMENTS`` of both.
        """
        if self._open is None:
            return
        # A cheap upper bound. The elements themselves are counted only if this bound exceeds the limit.
        self._tags += chunk.count(b"<") + chunk.count(b"=")
        if self._tags > MAX_ELEMENTS:
            self._tags = int(cast(float, _COUNT(self._open)))
            if self._tags > MAX_ELEMENTS:
                raise TooManyElements(f"Expected at most {MAX_ELEMENTS} elements and attributes in an entry.")


_COUNT = etree.XPath("count(.//*) + count(.//@*)")


def _completed(parser: etree.XMLPullParser, counter: _ElementCounter) -> Iterator[etree._Element]:
    for event, found in parser.read_events():
        element = cast(etree._Element, found)
        if event == "start":
            counter.begin(element)
        else:
            counter.end(element)
            yield element


def check_depth(element: etree._Element, *, within: int) -> None:
    """Refuse ``element`` if an element in it is nested more than 100 deep; ``within`` counts its ancestors.

    Raises:
        TooDeep: an element is nested more than 100 deep.
    """
    if _IS_UNUSUALLY_DEEP(element) and _IS_TOO_DEEP[within](element):
        raise TooDeep(f"Expected elements nested {MAX_DEPTH} deep at most.")
