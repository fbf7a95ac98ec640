"""Content negotiation for clients that spell media types in every way there is."""

from collections.abc import Iterable

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from ..atom import names

_ATOM_OR_XML = (names.MEDIA_TYPE, names.XML_TYPE, "text/xml", "")


class SDataNegotiation(BaseContentNegotiation):
    """What comes is Atom, or XML, or does not say what it is; what goes is what the URL stands for."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """Return the view's parser for Atom with whatever parameters, ``None`` for other types (415)."""
        main = (request.content_type or "").partition(";")[0].strip().lower()
        return next(iter(parsers)) if main in _ATOM_OR_XML else None

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the view's renderer, whatever the client accepts: it has no other."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)
