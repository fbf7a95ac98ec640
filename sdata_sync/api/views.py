"""The views: ``$syncDigest`` and ``$syncTarget`` of each kind."""

from collections.abc import Callable
from io import IOBase
from typing import Any, BinaryIO, ClassVar, TypeVar, cast

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..core.digest import Digest
from ..delivery import get_backend
from ..delivery.streams import heard_from
from ..exceptions import NotXml
from ..registry import registry
from ..resources import SyncResource
from ..sync.clock import now
from ..sync.digests import lock_digest
from ..sync.numbering import number_all_under_lock, number_changes
from ..sync.receiving import receive_feed
from ..sync.rejoining import take_higher_tick
from .errors import KindNotFound, UrlNotFound, answer_error
from .negotiation import SDataNegotiation
from .parsers import AtomFeedParser, DigestParser
from .permissions import PUSH_FEEDS, READ_FEEDS, SET_DIGEST, SDataPermission
from .renderers import DigestRenderer, ResultFeed, ResultFeedRenderer

T = TypeVar("T")


class _SDataView(APIView):
    permission_classes = [SDataPermission]
    content_negotiation_class = SDataNegotiation
    metadata_class = None  # OPTIONS would describe parsers and renderers in JSON
    #: The permission that each method asks for.
    needed_permissions: ClassVar[dict[str, str]] = {}
    resource: SyncResource

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let nobody learn which kinds there are before the login; then find the kind."""
        super().initial(request, *args, **kwargs)
        resource = registry.of_kind(kwargs["kind"])
        if resource is None:
            raise KindNotFound(f"There is no resource kind {kwargs['kind']!r} here.")
        self.resource = resource

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """Return what makes diagnoses of errors, whatever the project has set."""
        return answer_error


def _body(request: Request, kind: type[T]) -> T:
    """Return what the parser made of the body; the framework asks no parser when there is no body."""
    data = request.data
    if not isinstance(data, kind):
        raise NotXml("Expected a document in the body of the request, found none.")
    return data


class DigestView(_SDataView):
    """``$syncDigest``: the digest of a kind, read and set (SData sync 4.1, 5.1)."""

    parser_classes = [DigestParser]
    renderer_classes = [DigestRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS, "PUT": SET_DIGEST, "POST": SET_DIGEST}

    def get(self, request: Request, kind: str, operation: str) -> Response:
        """Answer with the digest, everything committed so far being numbered."""
        return Response(number_changes(self.resource).value)

    def put(self, request: Request, kind: str, operation: str) -> Response:
        """Raise ticks and take over priorities; a tick is never lowered. Answer with the digest afterwards."""
        claimed = _body(request, Digest)
        resource = self.resource
        with transaction.atomic(using=resource.database):
            stored = lock_digest(resource)
            take_higher_tick(resource, stored, claimed, "a digest that was set")
            number_all_under_lock(resource, stored)
            stored.save(stored.value.merge(claimed, stamp=now()).with_priorities(claimed))
        return Response(stored.value)

    # One page of the specification says POST where the others say PUT.
    post = put


class TargetView(_SDataView):
    """``$syncTarget``: one page of changes, applied at once (SData sync 5.3, 5.8).

    A ``trackingID`` asks for an asynchronous call; the provider may answer synchronously all the same (SData
    core 11.5), and this one does.
    """

    parser_classes = [AtomFeedParser]
    renderer_classes = [ResultFeedRenderer]
    needed_permissions = {"POST": PUSH_FEEDS}

    def post(self, request: Request, kind: str, operation: str) -> Response:
        """Apply the page and answer with what became of each entry and with the digest afterwards."""
        with _body(request, IOBase) as file:
            receipt = receive_feed(self.resource, cast(BinaryIO, file))
        if heard_from(receipt.source.origin, self.resource.kind):
            get_backend().wake(self.resource.kind, True)
        return Response(ResultFeed(resource=self.resource, receipt=receipt))


class UnknownView(_SDataView):
    """Whatever else is asked for under the dataset URL: answered in the protocol's own words."""

    parser_classes = [DigestParser]
    renderer_classes = [DigestRenderer]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let nobody learn what there is before the login."""
        APIView.initial(self, request, *args, **kwargs)
        raise UrlNotFound(
            f"There is nothing at {kwargs['rest']!r}; there are $syncDigest and $syncTarget of each kind."
        )
