"""Parse the body of a request, decompressed and limited in size, with ``sdata_sync.atom``."""

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
    """Spool a feed to a file, from which the view reads the entries one by one."""

    media_type = names.MEDIA_TYPE

    def parse(  # type: ignore[override]  # the framework accepts any type; its stubs allow forms and JSON only
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> BinaryIO:
        """Return the decompressed body as a file.

        Raises:
            DocumentError: the body is too large, or its content encoding is unknown or broken.
        """
        return _spooled(stream, parser_context)


class LinkParser(BaseParser):
    """Parse the entry of ``$linked``."""

    media_type = names.MEDIA_TYPE

    def parse(  # type: ignore[override]  # as above
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Link:
        """Return the link.

        Raises:
            DocumentError: the body is too large, not XML, or its content encoding is unknown or broken.
            FeedError: the document is not an entry that describes a link.
        """
        with _spooled(stream, parser_context) as file:
            return read_link_entry(file)


class DigestParser(BaseParser):
    """Parse the entry of ``$syncDigest``."""

    media_type = names.MEDIA_TYPE

    def parse(  # type: ignore[override]  # as above
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Digest:
        """Return the digest.

        Raises:
            DocumentError: the body is too large, not XML, or its content encoding is unknown or broken.
            FeedError: the document is neither an entry nor a digest, or the digest is malformed.
        """
        with _spooled(stream, parser_context) as file:
            return read_digest_entry(file)
