"""Negotiate content for clients that spell the media types in different ways."""

from collections.abc import Iterable

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from ..atom import names

_ATOM_OR_XML = (names.MEDIA_TYPE, names.XML_TYPE, "text/xml", "")


class SDataNegotiation(BaseContentNegotiation):
    """Accept Atom, XML or no content type, and answer with the media type of the URL."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """Return the view's parser for Atom, XML or no content type, and ``None`` for other types (415)."""
        main = (request.content_type or "").partition(";")[0].strip().lower()
        return next(iter(parsers)) if main in _ATOM_OR_XML else None

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the only renderer of the view; the ``Accept`` header is ignored."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)
