"""Provide the base class and the request helpers of the views."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django.db import connections, transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ...exceptions import FeedError, NotXml
from ...registry import registry
from ...sync.trust import Sender
from ..errors import KindNotFound, UrlNotFound, answer_error
from ..negotiation import SDataNegotiation
from ..permissions import SDataPermission
from ..throttling import PeerThrottle

if TYPE_CHECKING:
    from ...kind import Kind

T = TypeVar("T")


class SDataView(APIView):
    """Serve one URL of one kind."""

    permission_classes = [SDataPermission]
    throttle_classes = [PeerThrottle]
    content_negotiation_class = SDataNegotiation
    metadata_class = None  # OPTIONS would describe parsers and renderers in JSON
    #: The required permission by HTTP method.
    needed_permissions: ClassVar[dict[str, str]] = {}
    kind: Kind
    #: Who sends the request.
    sender: Sender

    @classmethod
    def as_view(cls, **options: Any) -> Any:
        """Return the view without the transaction that ``ATOMIC_REQUESTS`` opens around each request.

        The views open their own transactions: each begins with a lock, before anything is read, and is repeated when
        the database rolls it back. Neither works inside another transaction.
        """
        view = super().as_view(**options)
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate the request, then look up the kind, so that anonymous clients cannot list kinds.

        Raises:
            KindNotFound: no kind of that name is registered.
            UrlNotFound: the URL contains NUL.
            FeedError: a query parameter contains NUL.
        """
        super().initial(request, *args, **kwargs)
        kind = registry.of_kind(kwargs["kind"])
        if kind is None:
            raise KindNotFound(f"There is no resource kind {kwargs['kind']!r} here.")
        self.kind = kind
        # PostgreSQL raises an error for a query parameter with NUL.
        if any("\0" in str(value) for value in kwargs.values()):
            raise UrlNotFound("Expected a URL without NUL.")
        if any("\0" in value for value in request.query_params.values()):
            raise FeedError("Expected parameters without NUL.")

    def perform_authentication(self, request: Request) -> None:
        """Authenticate the request.

        Raises:
            FeedError: the name or the password contains NUL, for which a database may raise an error.
        """
        scheme, _, encoded = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):  # the authentication class answers a header that cannot be decoded
                if b"\0" in b64decode(encoded):
                    raise FeedError("Expected a login without NUL.")
        super().perform_authentication(request)

    def check_permissions(self, request: Request) -> None:
        """Check the permission of the login, and that its peer is not disabled.

        Raises:
            NotTrusted: the login belongs to a disabled peer.
        """
        super().check_permissions(request)
        self.sender = Sender.of_login(request.user)
        self.sender.check_enabled()

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """Return ``answer_error`` instead of the exception handler of the project's settings."""
        return answer_error


def body_of(request: Request, kind: type[T]) -> T:
    """Return the parsed body; Django REST framework calls no parser if the body is empty.

    Raises:
        NotXml: the request has no body.
    """
    data = request.data
    if not isinstance(data, kind):
        raise NotXml("Expected a document in the body of the request, found none.")
    return data


def query_of(request: Request) -> dict[str, str]:
    """Return the query parameters by name in lower case."""
    return {name.lower(): str(value) for name, value in request.query_params.items()}


def number(query: dict[str, str], name: str, default: int) -> int:
    """Return the query parameter ``name`` as an integer above 0, or ``default`` if it is missing.

    Raises:
        FeedError: the value is not an integer above 0.
    """
    text = query.get(name.lower(), "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text[:18]) > 0 and len(text) <= 18):
        raise FeedError(f"Expected {name} to be an integer above 0, received {text[:40]!r}.")
    return int(text)


def unescaped(key: str) -> str:
    """Return a key or id of a URL with its doubled quotes made single (SData core 2.7)."""
    return key.replace("''", "'")
