"""Render the source feed page by page: what a target lacked when the feed was selected (SData sync 5.2, 5.6).

The feed is not stored. An operation keeps two digests of the moment of selection, the target's and this node's, and
each page is selected between them. The link to a page contains its cursor, so no page costs more than another. A later
change has a tick beyond this node's digest of that moment and belongs to a later feed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ...atom.feed import SyncMode
from ...atom.renderer import Paging, render_feed
from ...core.ranges import missing_ranges
from ...exceptions import FeedError
from ..db.clock import now
from ..log.digests import StoredDigest, load_digest
from .changes import in_range, missing_and_inhabited, prepare_page

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind
    from ..scope import Scope
    from .oversize import PeerLimit

#: The URL parameter with the size in bytes of the largest page that a target accepts; other implementations ignore it.
MAX_BYTES = "maxBytes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cursor:
    """Hold the cursor of a page, which begins at ``tick`` of the endpoint with the primary key ``endpoint``.

    No endpoint has the primary key 0. ``endpoint`` 0 marks a page of resent resources, which precede all changes: it
    begins after the tracked resource with the primary key ``tick``.
    """

    endpoint: int
    tick: int

    def __str__(self) -> str:
        return f"{self.endpoint}.{self.tick}"

    @classmethod
    def of_resends(cls, after: int) -> Self:
        """Return the cursor of the resent resources after the one with the primary key ``after``."""
        return cls(endpoint=0, tick=after)

    @property
    def resends(self) -> int | None:
        """Return the primary key after which the page's resent resources begin; ``None`` if the page follows them."""
        return self.tick if self.endpoint == 0 else None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a cursor from ``text``, which ``str()`` has returned for it.

        Raises:
            FeedError: the text is not a cursor.
        """
        endpoint, _, tick = text.partition(".")
        if not (text.isascii() and endpoint.isdigit() and tick.isdigit() and len(text) < 40):
            raise FeedError(f"Expected the place of a next link, unchanged; received {text[:60]!r}.")
        return cls(endpoint=int(endpoint), tick=int(tick))


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedPage:
    """Hold one page of a feed as it is sent."""

    content: bytes
    is_last: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFeed:
    """Hold a feed of the changes that the digest ``source`` contains and the digest ``target`` lacks.

    ``source`` is this node's digest of the moment of selection. ``url`` is the URL of the feed. ``total`` is the number
    of its entries when they were counted.
    """

    kind: Kind
    source: Digest
    target: Digest
    url: str
    total: int
    scope: Scope | None = None

    def page(
        self,
        *,
        place: Cursor | None,
        start_index: int,
        count: int,
        peer_limit: PeerLimit | None = None,
        extra: str = "",
    ) -> RenderedPage:
        """Return the page of ``count`` entries that begins at the cursor ``place``.

        Without ``place`` it begins at ``start_index``, which counts from 1. ``peer_limit`` leaves out versions that are
        larger than the target accepts. ``extra`` is a parameter that is added to the next link.

        Raises:
            FeedError: ``place`` is not a cursor of this feed.
        """
        stored = load_digest(self.kind)
        stored.value = self.source
        begin = self._skip(stored, start_index - 1) if place is None else self._at(stored, place)
        resends = 0 if place is None and start_index == 1 else place.resends if place is not None else None
        page = prepare_page(
            self.kind, stored, begin, limit=count, scope=self.scope, resend_after=resends, peer_limit=peer_limit
        )
        next_url = ""
        if not page.is_last:
            after = page.resend_after
            place = _next_cursor(stored, page.cursor) if after is None else Cursor.of_resends(after)
            next_url = f"{self.url}?startIndex={start_index + len(page.states)}&count={count}&place={place}"
            next_url += f"&{extra}" if extra else ""
        content = render_feed(
            page.entries,
            url=self.url,
            title=f"{self.kind.name} of {self.kind.endpoint}",
            digest=self.source if self.scope is None else self.source.as_part_of(self.kind.endpoint),
            now=now(),
            sync_mode=SyncMode.CATCH_UP,
            paging=Paging(
                next_url=next_url, first_url=self.url, total=self.total, start_index=start_index, count=count
            ),
            referrers=page.referrers,
            left_out=0 if peer_limit is None else peer_limit.count,
        )
        return RenderedPage(content=b"".join(content), is_last=page.is_last)

    def _at(self, stored: StoredDigest, place: Cursor) -> Digest:
        if place.resends is not None:
            return self.target
        reached: dict[str, int] = {}
        for missing in missing_ranges(self.source, self.target):
            if stored.ensure_endpoint_id(missing.endpoint) == place.endpoint:
                reached[missing.endpoint] = place.tick
                return self.target.raised_all(reached, stamp=0)
            reached[missing.endpoint] = missing.end
        raise FeedError(f"Expected the place of a next link of this feed, received {place}.")

    def _skip(self, stored: StoredDigest, entries: int) -> Digest:
        """Return the target's digest as if the target had applied the first ``entries`` entries."""
        reached: dict[str, int] = {}
        for missing, is_inhabited in missing_and_inhabited(self.kind, stored, self.target):
            if entries <= 0:
                break
            reached[missing.endpoint] = missing.end
            if not is_inhabited:
                continue
            rows = in_range(self.kind, stored, missing)
            first_left = rows.order_by("tick").values_list("tick", flat=True)[entries : entries + 1].first()
            if first_left is not None:
                reached[missing.endpoint] = first_left
                break
            entries -= rows.count()
        return self.target.raised_all(reached, stamp=0)


def _next_cursor(stored: StoredDigest, cursor: Digest) -> Cursor:
    following = missing_ranges(stored.value, cursor)[0]
    return Cursor(endpoint=stored.ensure_endpoint_id(following.endpoint), tick=following.start)


def count_missing(kind: Kind, stored: StoredDigest, target: Digest, scope: Scope | None = None) -> int:
    """Return the number of entries in a feed of what ``stored`` contains and ``target`` lacks, within ``scope``."""
    ranges = [
        in_range(kind, stored, missing)
        for missing, is_inhabited in missing_and_inhabited(kind, stored, target)
        if is_inhabited
    ]
    if scope is None:
        return sum(rows.count() for rows in ranges)
    return scope.count_resends() + sum(scope.count(rows) for rows in ranges)
