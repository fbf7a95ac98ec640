"""Negotiate content for clients that spell the media types in different ways."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from rest_framework.exceptions import PermissionDenied
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from ..atom import names

_ATOM_OR_XML = (names.MEDIA_TYPE, names.XML_TYPE, "text/xml", "")


def _is_from_another_site(request: Request) -> bool:
    site = request.META.get("HTTP_SEC_FETCH_SITE", "")
    if site:
        return site not in ("same-origin", "none")
    origin = request.META.get("HTTP_ORIGIN", "")
    return bool(origin) and urlsplit(origin).netloc != request.get_host()


class SDataNegotiation(BaseContentNegotiation):
    """Accept Atom, XML or no content type, and answer with the media type of the URL."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """Return the view's parser for Atom, XML or no content type, and ``None`` for other types (415).

        Raises:
            PermissionDenied: a browser sends a body without a content type for a page of another site. It asks no
                permission for such a request, and adds the login of its user.
        """
        main = (request.content_type or "").partition(";")[0].strip().lower()
        if not main and _is_from_another_site(request):
            raise PermissionDenied("Expected a Content-Type in a request from another site, found none.")
        return next(iter(parsers)) if main in _ATOM_OR_XML else None

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the only renderer of the view; the ``Accept`` header is ignored."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)
