"""Parsers: a request's body, unpacked and bounded, as what ``sdata_sync.atom`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from rest_framework.parsers import BaseParser

from ..atom import names
from ..atom.body import chunks_of, spool
from ..atom.digest import read_digest_entry
from ..atom.linked import Link, read_link_entry
from ..conf import conf

if TYPE_CHECKING:
    from ..core.digest import Digest


def _spooled(stream: IO[Any], context: Mapping[str, Any] | None) -> BinaryIO:
    request = (context or {}).get("request")
    encoding = "" if request is None else request.META.get("HTTP_CONTENT_ENCODING", "")
    return spool(chunks_of(stream), limit=conf.max_body_bytes, encoding=encoding)


class AtomFeedParser(BaseParser):
    """Spools a feed; the view reads its entries from there, one by one."""

    media_type = names.MEDIA_TYPE

    def parse(  # type: ignore[override]  # the framework takes anything; its stubs know forms and JSON
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> BinaryIO:
        """Return the unpacked body as a file.

        Raises:
            DocumentError
        """
        return _spooled(stream, parser_context)


class LinkParser(BaseParser):
    """Reads the entry that ``$linked`` takes."""

    media_type = names.MEDIA_TYPE

    def parse(  # type: ignore[override]  # as above
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Link:
        """Return the link.

        Raises:
            DocumentError, FeedError
        """
        with _spooled(stream, parser_context) as file:
            return read_link_entry(file)


class DigestParser(BaseParser):
    """Reads the entry that ``$syncDigest`` carries."""

    media_type = names.MEDIA_TYPE

    def parse(  # type: ignore[override]  # as above
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Digest:
        """Return the digest.

        Raises:
            DocumentError, FeedError
        """
        with _spooled(stream, parser_context) as file:
            return read_digest_entry(file)
