"""Write feeds as a stream of text: the header, the entries one by one, the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import names
from .digest import render_digest
from .text import escape, escape_attribute, format_stamp

if TYPE_CHECKING:
    from ..core.digest import Digest
    from .feed import SyncMode


@dataclass(frozen=True, kw_only=True, slots=True)
class Paging:
    """Describe the position of a page in its feed (SData core 3.5), counted in entries from 1.

    ``next_url`` is empty on the last page. ``first_url`` may be empty.
    """

    next_url: str = ""
    first_url: str = ""
    total: int | None = None
    start_index: int = 1
    count: int | None = None


def render_feed(
    entries: Iterable[str],
    *,
    url: str,
    title: str,
    digest: Digest | None = None,
    now: int,
    sync_mode: SyncMode | None = None,
    paging: Paging = Paging(),
    referrers: Mapping[str, Digest] | None = None,
    left_out: int = 0,
) -> Iterator[bytes]:
    """Yield a feed in chunks of bytes (SData sync 4.4).

    Args:
        entries: texts from ``render_entry`` or ``render_result``.
        url: the URL and the id of the feed.
        title: the title for human readers.
        digest: the source's digest in a sync feed, the target's digest in a result feed, else ``None``.
        now: the present time in milliseconds since 1970.
        sync_mode: the mode of a sync feed; ``None`` for other feeds.
        paging: the position of this page in the feed.
        referrers: in a sync feed with deletions, the source's digests of the kinds that refer to this one, by kind.
        left_out: the number of versions left out because they are larger than the target accepts.
    """
    yield _heading(url, title, digest, now, sync_mode, paging).encode()
    if referrers is not None:
        yield _referrers(referrers).encode()
    if left_out:
        yield f"<dss:leftOut>{left_out}</dss:leftOut>".encode()
    for entry in entries:
        yield entry.encode()
    yield b"</feed>"


def _heading(url: str, title: str, digest: Digest | None, now: int, sync_mode: SyncMode | None, paging: Paging) -> str:
    links = _link("self", "Refresh", url) + _link("first", "First Page", paging.first_url)
    links += _link("next", "Next Page", paging.next_url)
    mode = f"<sync:syncMode>{sync_mode.value}</sync:syncMode>" if sync_mode else ""
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<feed {names.DECLARATIONS}><id>{escape(url)}</id>'
        f"<title>{escape(title)}</title><updated>{format_stamp(now)}</updated>"
        f"<author><name>{escape(digest.origin if digest else url)}</name></author>{links}{_numbers(paging)}{mode}"
        f"{render_digest(digest) if digest else ''}"
    )


def _referrers(referrers: Mapping[str, Digest]) -> str:
    # An extension element: other implementations skip it.
    kinds = (
        f'<dss:kind name="{escape_attribute(kind)}">{render_digest(digest)}</dss:kind>'
        for kind, digest in referrers.items()
    )
    return f"<dss:referrers>{''.join(kinds)}</dss:referrers>"


def _link(rel: str, title: str, url: str) -> str:
    href = escape_attribute(url)
    return f'<link rel="{rel}" type="{names.FEED_TYPE}" title="{title}" href="{href}"/>' if url else ""


def _numbers(paging: Paging) -> str:
    if paging.total is None:
        return ""
    numbers = {"totalResults": paging.total, "startIndex": paging.start_index, "itemsPerPage": paging.count}
    return "".join(
        f"<opensearch:{name}>{number}</opensearch:{name}>" for name, number in numbers.items() if number is not None
    )
