"""Serve the resources read-only: a collection by pages, and one by its key (SData core 2.1, 2.7, 3.5)."""

from collections.abc import Iterable
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from ...atom.entry import render_resource
from ...atom.renderer import Paging, render_feed
from ...conf import conf
from ...exceptions import FeedError
from ...sync.db.clock import now
from ...sync.scope import row_scope, scope_of
from ...sync.select.catalogue import Section, Shown, section, show
from ..errors import UrlNotFound
from ..parsers import DigestParser
from ..permissions import READ_FEEDS
from ..renderers import EntryRenderer, FeedRenderer
from .base import SDataView, number, query_of, unescaped


def render_section(
    found: Section, entries: Iterable[str], *, url: str, title: str, start_index: int, count: int, **query: str
) -> bytes:
    """Return part of a collection as a feed of ``entries``; ``query`` is added to the URL of the next page."""
    following = {"startIndex": start_index + len(found.resources), "count": count, "after": found.after, **query}
    paging = Paging(
        next_url=f"{url}?{urlencode(following)}" if found.after else "",
        first_url=url,
        total=found.total,
        start_index=start_index,
        count=count,
    )
    return b"".join(render_feed(entries, url=url, title=title, now=now(), paging=paging))


def _entry(shown: Shown, *, alone: bool = False) -> str:
    title = shown.url.rpartition("/")[2]
    return render_resource(
        id=shown.url, title=title, updated=shown.updated, payload=shown.payload, etag=shown.etag, alone=alone
    )


def page_of(request: Request) -> tuple[str, int, int]:
    """Return the cursor after which the page begins, the index of its first entry, and its size in entries.

    Raises:
        FeedError: ``count`` or ``startIndex`` is not an integer above 0.
    """
    query = query_of(request)
    count = min(number(query, "count", conf.page_size), conf.max_page_size)
    return query.get("after", ""), number(query, "startIndex", 1), count


class CollectionView(SDataView):
    """Serve ``accounts``: the resources of a kind."""

    parser_classes = [DigestParser]
    renderer_classes = [FeedRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS}

    def get(self, request: Request, **url: str) -> Response:
        """Answer with a page of the resources that the caller may read."""
        kind = self.kind
        after, start_index, count = page_of(request)
        rows = scope_of(kind, self.sender.peer)
        try:
            found = section(
                kind, kind.rows() if rows is None else rows, after=after, start_index=start_index, count=count
            )
        except ValidationError as error:
            raise FeedError(f"Expected the cursor of a next link, unchanged; received {after[:60]!r}.") from error
        title = f"{kind.name} of {conf.base_url}"
        entries = map(_entry, found.resources)
        return Response(
            render_section(found, entries, url=kind.endpoint, title=title, start_index=start_index, count=count)
        )


class ResourceView(SDataView):
    """Serve ``accounts('A001')``: one resource, by its local key."""

    parser_classes = [DigestParser]
    renderer_classes = [EntryRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS}

    def get(self, request: Request, key: str, **url: str) -> HttpResponseBase:
        """Answer with the resource, and with a hash of its content as the ETag."""
        kind, key = self.kind, unescaped(key)
        scope = row_scope(kind, self.sender.peer)
        # The key must be spelled as the database returns it: '007' is not the key of row 7.
        shown = show(kind, [key]).get(key) if scope is None or scope.among([key]) else None
        if shown is None:
            raise UrlNotFound(f"There is no {kind.name}({key!r}) here.")
        tag = f'"{shown.etag}"'
        if tag in request.META.get("HTTP_IF_NONE_MATCH", ""):
            return HttpResponse(status=304, headers={"ETag": tag})
        return Response(_entry(shown, alone=True).encode(), headers={"ETag": tag})
