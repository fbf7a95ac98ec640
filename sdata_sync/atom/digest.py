"""Read and write the digest as an XML element, and as the Atom entry of ``$syncDigest``."""

import re
from typing import BinaryIO

from lxml import etree

from ..core.digest import DEFAULT_PRIORITY, Digest, DigestEntry
from ..core.state import MAX_TICK
from ..core.text import fold, has_unseen
from ..exceptions import FeedError
from . import names
from .document import read_root
from .text import escape, escape_attribute, format_stamp, parse_stamp

MAX_ENDPOINT = 500
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


def read_digest_entry(file: BinaryIO) -> Digest:
    """Read the document of ``$syncDigest`` (SData sync 4.2, 5.1).

    The digest may be inside the payload, beside the payload, or the root element. An entry without a digest is read as
    an empty digest, which contains no change.

    Raises:
        DocumentError: the document is not XML, has a DOCTYPE or is nested too deeply.
        FeedError: the root is neither an entry nor a digest, or the digest is malformed.
    """
    root = read_root(file)
    if names.local_name(root.tag) not in ("entry", "digest"):
        raise FeedError(f"Expected an Atom entry that holds a digest, received <{names.local_name(root.tag)}>.")
    digest = next((element for element in root.iter() if names.local_name(element.tag) == "digest"), None)
    found = Digest() if digest is None else read_digest(digest)
    waiting = root.findtext(names.WAITING)
    return found.with_waiting(int(waiting)) if waiting and re.fullmatch("[0-9]{1,9}", waiting) else found


def read_digest(element: etree._Element) -> Digest:
    """Read a ``digest`` element (SData sync 4.2).

    Raises:
        FeedError: an endpoint or a tick is missing, or a value is malformed.
    """
    origin = ""
    entries: list[DigestEntry] = []
    for child in element:
        name = names.local_name(child.tag)
        if name == "origin":
            origin = (child.text or "").strip()
            origin = origin and read_endpoint(origin, "digest/origin")
        elif name == "digestEntry":
            entries.append(_read_entry(child, len(entries) + 1))
    delivered = element.get(names.DELIVERED)
    return Digest(
        entries,
        origin=origin,
        part_of=(element.get(names.PART_OF) or "").strip()[:MAX_ENDPOINT],
        delivered=read_tick(delivered, "digest/@delivered") if delivered else None,
    )


def _read_entry(element: etree._Element, number: int) -> DigestEntry:
    values = {names.local_name(child.tag): (child.text or "").strip() for child in element}
    path = f"digest/digestEntry[{number}]"
    priority = values.get("conflictPriority")
    return DigestEntry(
        endpoint=read_endpoint(values.get("endpoint", ""), f"{path}/endpoint"),
        tick=read_tick(values.get("tick", ""), f"{path}/tick"),
        stamp=read_stamp(values["stamp"], f"{path}/stamp") if values.get("stamp") else None,
        conflict_priority=_read_priority(priority, f"{path}/conflictPriority") if priority else DEFAULT_PRIORITY,
    )


def _read_integer(text: str, path: str) -> int:
    # int() alone would also accept underscores and the digits of other scripts.
    if _INTEGER.fullmatch(text) is None:
        raise FeedError(f"Expected an integer in {path}, received {text[:40]!r}.", payload_path=path)
    return int(text)


def _read_priority(text: str, path: str) -> int:
    # Values outside 1 to 9 are accepted and compared as numbers. They are clamped to 32 bits, the column's size.
    return min(max(_read_integer(text, path), -(2**31)), 2**31 - 1)


def read_endpoint(text: str, path: str) -> str:
    """Read the URL of an endpoint; ``path`` names the element in the error.

    Raises:
        FeedError: ``text`` is empty, has control characters, or more than 500 characters, also after ``fold``.
    """
    if not text:
        raise FeedError(f"Expected an endpoint in {path}, found none.", payload_path=path)
    if has_unseen(text):
        raise FeedError(f"Expected a URL in {path}, received {text[:80]!r}.", payload_path=path)
    length = max(len(text), len(fold(text)))
    if length > MAX_ENDPOINT:
        raise FeedError(f"Expected {MAX_ENDPOINT} characters at most in {path}, received {length}.", payload_path=path)
    return text


def read_tick(text: str, path: str) -> int:
    """Read a tick; ``path`` names the element in the error.

    Raises:
        FeedError: ``text`` is not an integer from 0 to 2^63 - 1.
    """
    tick = _read_integer(text, path)
    if not 0 <= tick <= MAX_TICK + 1:
        raise FeedError(f"Expected a tick from 0 to {MAX_TICK + 1} in {path}, received {tick}.", payload_path=path)
    return tick


def read_stamp(text: str, path: str) -> int:
    """Read a stamp, in milliseconds since 1970; ``path`` names the element in the error.

    Raises:
        FeedError: ``text`` is not a W3C date-time.
    """
    try:
        return parse_stamp(text)
    except ValueError as error:
        raise FeedError(f"In {path}: {error}.", payload_path=path) from error


def render_digest(digest: Digest) -> str:
    """Return the ``sync:digest`` element as text (SData sync 4.2)."""
    part = f' dss:partOf="{escape_attribute(digest.part_of)}"' if digest.part_of else ""
    delivered = "" if digest.delivered is None else f' dss:delivered="{digest.delivered}"'
    parts = [f"<sync:digest{part}{delivered}>"]
    if digest.origin:
        parts.append(f"<sync:origin>{escape(digest.origin)}</sync:origin>")
    parts.extend(
        f"<sync:digestEntry><sync:endpoint>{escape(entry.endpoint)}</sync:endpoint>"
        f"<sync:tick>{entry.tick}</sync:tick>"
        f"<sync:stamp>{format_stamp(entry.stamp or 0)}</sync:stamp>"
        f"<sync:conflictPriority>{entry.conflict_priority}</sync:conflictPriority></sync:digestEntry>"
        for entry in digest
    )
    parts.append("</sync:digest>")
    return "".join(parts)


def render_digest_entry(digest: Digest, *, now: int) -> str:
    """Return the document of ``$syncDigest``; ``now`` is the present time in milliseconds since 1970.

    The number of waiting entries is in an element of its own beside the payload, which other implementations skip.
    """
    url = f"{digest.origin}/$syncDigest"
    waiting = "" if digest.waiting is None else f"<dss:waiting>{digest.waiting}</dss:waiting>"
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<entry {names.DECLARATIONS}><id>{escape(url)}</id>'
        f"<title>Synchronization digest</title><updated>{format_stamp(now)}</updated>"
        f"<author><name>{escape(digest.origin)}</name></author>"
        f'<link rel="self" type="{names.ENTRY_TYPE}" title="Refresh" href="{escape_attribute(url)}"/>'
        f"<content>Synchronization digest</content>"
        f"<sdata:payload>{render_digest(digest)}</sdata:payload>{waiting}</entry>"
    )
