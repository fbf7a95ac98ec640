"""Read and write the entry of ``$linked``, which links a uuid to a local key (SData sync 1.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import UUID

from lxml import etree

from ..exceptions import FeedError
from . import names
from .document import check_depth, read_elements, read_root
from .payload import attribute
from .text import escape, format_stamp

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

_METHODS = ("GET", "POST", "PUT", "DELETE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """Hold one link from a request.

    ``uuid`` is ``None`` if this node chooses the uuid. ``key`` is the local key of the row. ``method`` is the HTTP
    method of the entry in a batch.
    """

    uuid: UUID | None
    kind: str
    key: str
    method: str = "POST"


def read_link_entry(file: BinaryIO) -> Link:
    """Read the body of a POST or PUT on ``$linked``.

    Raises:
        DocumentError: the document is not XML, has a DOCTYPE or is nested too deeply.
        FeedError: the document is not an Atom entry, or ``read_link`` refuses the entry.
    """
    root = read_root(file)
    if names.local_name(root.tag) != "entry":
        raise FeedError(f"Expected an Atom entry, received <{names.local_name(root.tag)}>.")
    return read_link(root, "entry")


def read_batch(file: BinaryIO) -> Iterator[etree._Element]:
    """Yield the entries of a batch (SData core 13.3); ``read_link`` reads each of them.

    Raises:
        DocumentError: the document is not well-formed, has a DOCTYPE, or is too deep or too large.
        FeedError: the document is not an Atom feed.
    """
    for element in read_elements(file, f"{{{names.ATOM}}}entry", "entry"):
        parent = element.getparent()
        if parent is None:
            if names.local_name(element.tag) != "feed":
                raise FeedError(f"Expected an Atom feed, received <{names.local_name(element.tag)}>.")
        elif parent.getparent() is None:
            check_depth(element, within=1)
            yield element
            parent.remove(element)


def render_link_result(
    *,
    id: str,  # noqa: A002  Atom's own name
    method: str,
    status: int,
    payload: str,
    diagnosis: Diagnosis | None,
    now: int,
) -> str:
    """Return the result of one entry of a batch as an ``entry``; ``now`` is in milliseconds since 1970."""
    said_method = f"<http:httpMethod>{method}</http:httpMethod>" if method in _METHODS else ""
    said = "" if diagnosis is None else diagnosis.render()
    content = f"<sdata:payload>{payload}</sdata:payload>" if payload else ""
    return (
        f"<entry><id>{escape(id)}</id><title>{escape(id)}</title><updated>{format_stamp(now)}</updated>"
        f"<content/><http:httpStatus>{status}</http:httpStatus>{said_method}"
        f"{said}{content}</entry>"
    )


def read_link(entry: etree._Element, path: str) -> Link:
    """Read one entry that describes a link, alone or in a batch; ``path`` names the entry in errors.

    Raises:
        FeedError: the uuid is malformed, or a POST or PUT has no URL of a resource.
    """
    wrapper = next((child for child in entry if names.local_name(child.tag) == "payload"), None)
    kind = None if wrapper is None else next(iter(wrapper), None)
    holders = [holder for holder in (kind, wrapper) if holder is not None]
    url = next((value for h in holders for name in ("url", "uri") if (value := attribute(h, name))), "")
    said = {names.local_name(child.tag): (child.text or "").strip() for child in entry}
    method = said.get("httpMethod", "POST").upper()
    uuid = _uuid(next((value for h in holders if (value := attribute(h, "uuid"))), ""), path)
    if method in ("DELETE", "GET"):
        uuid = uuid or uuid_in_url(said.get("id", ""), path)
        return Link(uuid=uuid, kind="", key="", method=method)
    if not url:
        raise FeedError(f"Expected an sdata:url in {path}/payload, found none.", payload_path=f"{path}/payload")
    kind_name, key = split_resource_url(url, f"{path}/payload")
    return Link(uuid=uuid, kind=kind_name, key=key, method=method)


def _uuid(text: str, path: str) -> UUID | None:
    try:
        return UUID(text.strip()) if text else None
    except ValueError as error:
        raise FeedError(
            f"Expected a uuid in {path}/payload, received {text[:60]!r}.", payload_path=f"{path}/payload"
        ) from error


def uuid_in_url(url: str, path: str) -> UUID | None:
    """Return the uuid of a URL that ends with ``$linked('uuid')``; ``path`` names the entry in errors.

    Raises:
        FeedError: the URL does not end that way, or holds no uuid.
    """
    _, key = split_resource_url(url, f"{path}/id")
    return _uuid(key, path)


def split_resource_url(url: str, path: str) -> tuple[str, str]:
    """Return the kind and the local key of a URL that ends with ``accounts('A001')`` (SData core 2.7).

    Raises:
        FeedError: the URL does not end with a kind and a quoted key in brackets.
    """
    last = unquote(urlsplit(url.strip()).path).rpartition("/")[2]
    kind, opened, rest = last.partition("('")
    if not (kind and opened and rest.endswith("')")):
        raise FeedError(
            f"Expected a URL like .../accounts('A001') in {path}, received {url[:200]!r}.", payload_path=path
        )
    return kind, rest[:-2].replace("''", "'")
