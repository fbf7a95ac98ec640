"""What the views have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django.db import connections, transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ...exceptions import FeedError, NotXml
from ...registry import registry
from ..errors import KindNotFound, UrlNotFound, answer_error
from ..negotiation import SDataNegotiation
from ..permissions import SDataPermission

if TYPE_CHECKING:
    from ...resources import SyncResource

T = TypeVar("T")


class SDataView(APIView):
    """A URL of one kind."""

    permission_classes = [SDataPermission]
    content_negotiation_class = SDataNegotiation
    metadata_class = None  # OPTIONS would describe parsers and renderers in JSON
    #: The permission that each method asks for.
    needed_permissions: ClassVar[dict[str, str]] = {}
    resource: SyncResource

    @classmethod
    def as_view(cls, **options: Any) -> Any:
        """Return the view, outside of the transaction that a project may have around each of its requests.

        Ours begin with a lock, before anything is read, and begin anew when the database undoes them; neither can
        be had inside of another.
        """
        view = super().as_view(**options)
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let nobody learn which kinds there are before the login; then find the kind."""
        super().initial(request, *args, **kwargs)
        resource = registry.of_kind(kwargs["kind"])
        if resource is None:
            raise KindNotFound(f"There is no resource kind {kwargs['kind']!r} here.")
        self.resource = resource
        # There are databases that cannot even be asked for it.
        if any("\0" in str(value) for value in kwargs.values()):
            raise UrlNotFound("There is nothing with NUL in its address.")
        if any("\0" in value for value in request.query_params.values()):
            raise FeedError("Expected parameters without NUL.")

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """Return what makes diagnoses of errors, whatever the project has set."""
        return answer_error


def body_of(request: Request, kind: type[T]) -> T:
    """Return what the parser made of the body; the framework asks no parser when there is no body.

    Raises:
        NotXml
    """
    data = request.data
    if not isinstance(data, kind):
        raise NotXml("Expected a document in the body of the request, found none.")
    return data


def query_of(request: Request) -> dict[str, str]:
    """Return the parameters by their names in lower case."""
    return {name.lower(): str(value) for name, value in request.query_params.items()}


def number(query: dict[str, str], name: str, default: int) -> int:
    """Return a parameter that is a number above 0.

    Raises:
        FeedError
    """
    text = query.get(name.lower(), "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text[:18]) > 0 and len(text) <= 18):
        raise FeedError(f"Expected {name} to be an integer above 0, received {text[:40]!r}.")
    return int(text)


def unescaped(key: str) -> str:
    """Return a key or an id as it is meant: a quote inside of one is doubled in a URL (SData core 2.7)."""
    return key.replace("''", "'")
