"""Feeds as a stream of text: the heading, the entries one by one, the end."""

from collections.abc import Iterable, Iterator

from ..core.digest import Digest
from . import names
from .dates import format_stamp
from .digest import render_digest
from .feed import SyncMode
from .text import escape, escape_attribute


def render_feed(
    entries: Iterable[str],
    *,
    url: str,
    title: str,
    digest: Digest,
    now: int,
    sync_mode: SyncMode | None = None,
    next_url: str = "",
) -> Iterator[bytes]:
    """Yield a feed piece by piece (SData sync 4.4).

    Args:
        entries: what ``render_entry`` or ``render_result`` returned.
        url: the feed's own URL and id.
        title: for people.
        digest: of the source in a sync feed, of the target in a result feed.
        now: milliseconds since 1970.
        sync_mode: for a sync feed; a result feed has none.
        next_url: where the next page is; empty on the last page.
    """
    yield _heading(url, title, digest, now, sync_mode, next_url).encode()
    for entry in entries:
        yield entry.encode()
    yield b"</feed>"


def _heading(url: str, title: str, digest: Digest, now: int, sync_mode: SyncMode | None, next_url: str) -> str:
    address = escape_attribute(url)
    links = [f'<link rel="self" type="{names.FEED_TYPE}" title="Refresh" href="{address}"/>']
    if next_url:
        links.append(
            f'<link rel="next" type="{names.FEED_TYPE}" title="Next Page" href="{escape_attribute(next_url)}"/>'
        )
    mode = f"<sync:syncMode>{sync_mode.value}</sync:syncMode>" if sync_mode else ""
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<feed {names.DECLARATIONS}><id>{escape(url)}</id>'
        f"<title>{escape(title)}</title><updated>{format_stamp(now)}</updated>"
        f"<author><name>{escape(digest.origin)}</name></author>{''.join(links)}{mode}{render_digest(digest)}"
    )
