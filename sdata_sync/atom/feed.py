"""Read a feed as a stream of entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, Generic, TypeVar

from lxml import etree

from ..exceptions import FeedError
from . import names
from .digest import read_digest
from .document import check_depth, read_elements
from .entry import Entry, ReceivedResult, read_entry, read_result

if TYPE_CHECKING:
    from ..core.digest import Digest

T = TypeVar("T")


class SyncMode(Enum):
    """Name the two values of ``syncMode`` (SData sync 4.4)."""

    IMMEDIATE = "immediate"
    CATCH_UP = "catchUp"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedHeader:
    """Hold the elements of a feed before its entries; a missing element is ``None`` or empty.

    ``next_url`` is the URL of the next page. ``total`` is the number of entries on all pages together. ``referrers`` is
    set in a feed with deletions: it holds, by kind, the source's digests of the kinds that refer to this one; it is
    ``None`` if the source does not send them. ``left_out`` is the number of versions that the source leaves out of
    feeds to this target because they are larger than the target accepts.
    """

    sync_mode: SyncMode | None
    digest: Digest | None
    next_url: str = ""
    total: int | None = None
    referrers: Mapping[str, Digest] | None = None
    left_out: int = 0

    @property
    def is_complete(self) -> bool:
        """Return True if ``sync_mode`` and ``digest`` are both present."""
        return self.sync_mode is not None and self.digest is not None


class FeedReader(Generic[T]):
    """Read one feed, once.

    ``header`` is set by the constructor. ``entries()`` yields the entries while they are parsed, so that memory does
    not grow with their number, unless the feed has its digest after the entries. ``next_url`` is correct only after all
    entries were read, because its link may follow the entries. Read it only then to find out whether the page is the
    last one.
    """

    header: FeedHeader
    next_url: str

    def __init__(self, file: BinaryIO, read: Callable[[etree._Element, int], T], *, wait_for_header: bool) -> None:
        self._read = read
        self._elements = read_elements(file, f"{{{names.ATOM}}}entry", "entry")
        self._root: etree._Element | None = None
        self._taken: list[etree._Element] = []
        self.next_url = ""
        self._read_header(wait_for_header)

    def _read_header(self, wait: bool) -> None:
        for element in self._elements:
            if self._is_entry(element):
                root = element.getparent()
                assert root is not None
                if not self._taken:  # only before the first entry: later the rest of the header follows the entries
                    self.header = _header(root)
                self._taken.append(_taken_out(element, root))
                if self.header.is_complete or not wait:
                    return
            elif element.getparent() is None:
                self._finish(element)

    @staticmethod
    def _is_entry(element: etree._Element) -> bool:
        # Not an entry inside a payload: a contract may have an element of that name.
        parent = element.getparent()
        return parent is not None and parent.getparent() is None and parent.tag in (f"{{{names.ATOM}}}feed", "feed")

    def _finish(self, root: etree._Element) -> None:
        if root.tag not in (f"{{{names.ATOM}}}feed", "feed"):
            raise FeedError(f"Expected an Atom feed, received <{root.tag}>.")
        self._root = root
        self.header = _header(root)
        self.next_url = self.header.next_url

    def entries(self) -> Iterator[T]:
        """Yield the entries in the order of the feed.

        An error may be raised after entries were yielded, so the caller must be able to undo the entries it has
        applied.

        Raises:
            DocumentError: the document is not well-formed, or is too deep or too large.
            FeedError: an entry is malformed, or the root is not an Atom feed.
        """
        for number, element in enumerate(self._entry_elements(), start=1):
            check_depth(element, within=1)
            yield self._read(element, number)

    def _entry_elements(self) -> Iterator[etree._Element]:
        while self._taken:
            yield self._taken.pop(0)
        for element in self._elements:
            parent = element.getparent()
            if parent is None:
                self._finish(element)
            elif self._is_entry(element):
                yield _taken_out(element, parent)


def _taken_out(element: etree._Element, parent: etree._Element) -> etree._Element:
    """Return a copy of ``element`` that has no parent, and free the original.

    Moving the original instead takes time quadratic in the number of its descendants whose namespace is declared on an
    ancestor.
    """
    alone = deepcopy(element)
    element.clear()
    parent.remove(element)
    return alone


def _header(root: etree._Element) -> FeedHeader:
    mode = digest = total = referrers = None
    next_url, left_out = "", 0
    for child in root:
        name = names.local_name(child.tag)
        if name == "syncMode":
            mode = _sync_mode(child.text or "")
        elif name == "digest":
            digest = read_digest(child)
        elif child.tag == names.REFERRERS:
            referrers = _referrers(child)
        elif child.tag == names.LEFT_OUT:
            left_out = _number(child.text) or 0
        elif name == "link" and child.get("rel") == "next":
            next_url = next_url or child.get("href", "")
        elif name == "totalResults":
            total = _number(child.text)
    return FeedHeader(
        sync_mode=mode, digest=digest, next_url=next_url, total=total, referrers=referrers, left_out=left_out
    )


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _referrers(element: etree._Element) -> dict[str, Digest]:
    """Read the digests of the kinds that refer to the kind of the feed; see ``renderer.render_feed``.

    Raises:
        FeedError: a digest is malformed.
    """
    return {
        kind.get("name") or "": read_digest(digest)
        for kind in element
        for digest in kind
        if names.local_name(digest.tag) == "digest"
    }


def _sync_mode(text: str) -> SyncMode:
    for mode in SyncMode:
        if text.strip().lower() == mode.value.lower():
            return mode
    raise FeedError(
        f"Expected a syncMode of immediate or catchUp, received {text.strip()[:40]!r}.",
        payload_path="feed/syncMode",
    )


def read_sync_feed(file: BinaryIO) -> FeedReader[Entry]:
    """Read a sync feed (SData sync 4.4).

    Raises:
        DocumentError: the document is not well-formed, has a DOCTYPE, or is too deep or too large.
        FeedError: the root is not an Atom feed, or ``syncMode`` or ``digest`` is missing or malformed.
    """
    reader = FeedReader(file, read_entry, wait_for_header=True)
    if reader.header.sync_mode is None:
        raise FeedError("Expected a syncMode in the feed, found none.", payload_path="feed/syncMode")
    if reader.header.digest is None:
        raise FeedError("Expected a digest in the feed, found none.", payload_path="feed/digest")
    return reader


def read_result_feed(file: BinaryIO) -> FeedReader[ReceivedResult]:
    """Read a result feed, with or without a digest (SData core 13.4, SData sync 5.3).

    Raises:
        DocumentError: the document is not well-formed, has a DOCTYPE, or is too deep or too large.
        FeedError: the root is not an Atom feed, or its digest is malformed.
    """
    return FeedReader(file, read_result, wait_for_header=False)
