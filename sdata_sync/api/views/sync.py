"""Serve ``$syncDigest``, ``$syncSource``, ``$syncTarget`` and ``$syncResults`` of each kind."""

from io import IOBase
from typing import Any, BinaryIO, ClassVar, cast

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ...atom.feed import read_result_feed
from ...atom.names import XML_TYPE
from ...atom.tracking import Tracking
from ...conf import conf
from ...core.digest import Digest
from ...core.text import one_line
from ...delivery import get_backend
from ...delivery.lease import end_backoff
from ...exceptions import NotTrusted
from ...models import Operation
from ...models.operation import Phase, Role
from ...sync.apply.receive import receive_feed
from ...sync.bounds import Bounds, check_size
from ...sync.content.deferred import count_waiting, retry_others
from ...sync.db.clock import now
from ...sync.db.isolation import atomically_by_row
from ...sync.log.digests import load_digest, lock_digest
from ...sync.operations import begin as begin_operation
from ...sync.operations import check_success, find, keep, operation_url, select_now, source_feed, start_after_commit
from ...sync.operations import delete as delete_operation
from ...sync.runs import RunLabel, record_results
from ...sync.scope import check_partial_exchange, row_scope, scope_for
from ...sync.select.feed import MAX_BYTES, Cursor, RenderedPage
from ...sync.select.oversize import PeerLimit
from ...sync.stamp.restore_gap import take_higher_tick
from ...sync.stamp.stamper import assign_ticks_under_lock, check_and_assign_ticks
from ..errors import UrlNotFound
from ..parsers import AtomFeedParser, DigestParser
from ..permissions import PUSH_FEEDS, READ_FEEDS, SET_DIGEST
from ..renderers import DigestRenderer, FeedRenderer, ResultFeed, ResultFeedRenderer
from .base import SDataView, body_of, number, query_of, unescaped


class DigestView(SDataView):
    """Serve ``$syncDigest``: read and set the digest of a kind (SData sync 4.1, 5.1)."""

    parser_classes = [DigestParser]
    renderer_classes = [DigestRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS, "PUT": SET_DIGEST, "POST": SET_DIGEST}

    def get(self, request: Request, kind: str, operation: str) -> Response:
        """Assign ticks to all committed changes, then answer with the digest and the number of waiting resources.

        Before its first tick a process reads the digests of the peers (network): this node may have been restored from
        a backup.
        """
        stored = check_and_assign_ticks(self.kind)
        own = self.sender.peer
        digest = stored.value if own is None else stored.shown_to(own.endpoint(self.kind.name), stored.value)
        peer = None if row_scope(self.kind, self.sender.peer) is None else self.sender.peer
        return Response(digest.with_waiting(count_waiting(self.kind, peer)))

    def put(self, request: Request, **url: str) -> Response:
        """Raise ticks and take over priorities, then answer with the digest; a tick is never lowered."""
        claimed = body_of(request, Digest)
        kind = self.kind
        speaker = self.sender.speaker(kind, claimed.origin)
        if not speaker.is_trusted:
            raise NotTrusted(
                f"Expected the digest of an enabled peer of this node, received one of "
                f"{claimed.origin or 'an unnamed endpoint'} from {self.sender.name}. Add the peer, or give the login "
                "the permission carry_feeds."
            )

        def act() -> Digest:
            stored = lock_digest(kind)
            take_higher_tick(kind, stored, claimed, "a digest that was set")
            bounds = Bounds(kind, stored, claimed, restores=True, speaker=speaker)
            assign_ticks_under_lock(kind, stored)
            stored.save(stored.value.merge(bounds.source, stamp=now()).with_priorities(bounds.source))
            bounds.report()
            return stored.value

        digest = atomically_by_row(kind.database, act)
        retry_others(kind)
        return Response(digest)

    # One page of the specification says POST, the other pages say PUT.
    post = put


class _OperationView(SDataView):
    """Serve a URL whose calls may outlive their request (SData core 11.5).

    ``$syncSource?trackingID=X`` names the same operation as ``$syncSource('X')``.
    """

    role: ClassVar[Role]

    def get(self, request: Request, kind: str, operation: str, tracking_id: str = "") -> HttpResponseBase:
        """Answer 202 with the progress while the operation runs, then 200 with its outcome."""
        found = self._found(request, tracking_id)
        if not found.is_ended:
            start_after_commit(found)  # the process that ran it may have died
            return self._accepted(found)
        check_success(found)
        return self.outcome(request, found)

    def delete(self, request: Request, kind: str, operation: str, tracking_id: str = "") -> HttpResponseBase:
        """Delete the operation; it can still be read for a minute."""
        delete_operation(self._found(request, tracking_id))
        # With a content type and a body: one client hangs after an empty 200 without a content type.
        return HttpResponse("Deleted.", content_type="text/plain")

    def outcome(self, request: Request, operation: Operation) -> HttpResponseBase:
        """Return the response for an operation that has succeeded."""
        raise NotImplementedError

    def _found(self, request: Request, tracking_id: str) -> Operation:
        tracking_id = unescaped(tracking_id) or query_of(request).get("trackingid", "")
        operation = find(self.kind, self.role, tracking_id, self.sender)
        if operation is None:
            raise UrlNotFound(f"There is no operation ${self.role}({tracking_id!r}) here, or it has been deleted.")
        return operation

    def _accepted(self, operation: Operation) -> Response:
        elapsed = (now() - operation.created_at) // 1000
        tracking = Tracking(
            phase=Phase(operation.phase).label,
            phase_detail=f"{operation.done} processed" if operation.done else "",
            progress=100.0 * operation.done / operation.total if operation.total else 0.0,
            elapsed_seconds=elapsed,
            remaining_seconds=1,
            polling_millis=min(20 + 100 * elapsed, 2000),
        )
        return Response(
            tracking,
            status=202,
            headers={"Location": operation_url(self.kind, operation)},
            content_type=f"{XML_TYPE}; charset=utf-8",
        )

    def _accept(self, operation: Operation) -> Response:
        start_after_commit(operation)
        return self._accepted(operation)


def _run(request: Request) -> RunLabel:
    query = query_of(request)
    return RunLabel(name=one_line(query.get("runname", "")), stamp=one_line(query.get("runstamp", "")))


class SourceView(_OperationView):
    """Serve ``$syncSource``: the changes that a target lacks (SData sync 5.2, 5.6)."""

    role = Role.SOURCE
    parser_classes = [DigestParser]
    renderer_classes = [FeedRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS, "POST": READ_FEEDS, "DELETE": READ_FEEDS}

    def post(self, request: Request, kind: str, operation: str, tracking_id: str = "") -> HttpResponseBase:
        """Select the changes that the posted digest lacks: now, or with a trackingID in an operation."""
        target, query = check_size(body_of(request, Digest)), query_of(request)
        if not self.kind.is_filtered:  # a filter must know what others have given to the peer
            target = target.as_delivered_by(self.kind.endpoint)
        name = tracking_id or query.get("trackingid", "")
        self._refuse_others(target)
        limit = self._limit(request, target)
        if limit is not None and limit.release_fitting():
            check_and_assign_ticks(self.kind)
        if name:
            run = _run(request)
            return self._accept(begin_operation(self.kind, self.role, name, self.sender, target=target, run=run))
        selected = select_now(self.kind, target, self.sender, run=_run(request))
        page = self._page(request, selected)
        if not page.is_last:
            keep(selected)
        return Response(page.content)

    def _refuse_others(self, target: Digest) -> None:
        if not self.kind.is_source:
            raise PermissionDenied(f"This node sends its {self.kind.name} to no other node.")
        check_partial_exchange(self.kind, load_digest(self.kind).value, target)

    def outcome(self, request: Request, operation: Operation) -> HttpResponseBase:
        """Return the page that the URL names."""
        return Response(self._page(request, operation).content)

    def _page(self, request: Request, operation: Operation) -> RenderedPage:
        query = query_of(request)
        feed = source_feed(self.kind, operation)
        return feed.page(
            place=Cursor.read(query["place"]) if query.get("place") else None,
            start_index=number(query, "startIndex", 1),
            count=min(number(query, "count", conf.page_size), conf.max_page_size),
            peer_limit=self._limit(request, feed.target),
            extra=f"{MAX_BYTES}={query[MAX_BYTES.lower()]}" if query.get(MAX_BYTES.lower()) else "",
        )

    def _limit(self, request: Request, target: Digest) -> PeerLimit | None:
        """Return the size limit for feeds to the caller, or ``None`` if the request names no limit.

        Versions that are left out are stored for a peer: the peer that the login speaks for with the
        origin of the target's digest.
        """
        max_bytes = number(query_of(request), MAX_BYTES, 0)
        if not max_bytes:
            return None
        return PeerLimit(self.kind, self.sender.own_peer(target.origin), max_bytes=max_bytes)


class TargetView(_OperationView):
    """Serve ``$syncTarget``: apply one page of changes (SData sync 5.3, 5.8)."""

    role = Role.TARGET
    parser_classes = [AtomFeedParser]
    renderer_classes = [ResultFeedRenderer]
    needed_permissions = dict.fromkeys(("GET", "HEAD", "POST", "DELETE", "OPTIONS"), PUSH_FEEDS)

    def post(self, request: Request, kind: str, operation: str, tracking_id: str = "") -> HttpResponseBase:
        """Apply the page: now, or with a trackingID in an operation of that name."""
        if not self.kind.is_target:
            raise PermissionDenied(f"This node accepts no changes of its {self.kind.name}.")
        name = tracking_id or query_of(request).get("trackingid", "")
        with body_of(request, IOBase) as body:
            file = cast(BinaryIO, body)
            if name:
                run = _run(request)
                return self._accept(begin_operation(self.kind, self.role, name, self.sender, body=file, run=run))
            receipt = receive_feed(self.kind, file, self.sender)
        if receipt.peer is not None and end_backoff(receipt.peer, self.kind.name):
            get_backend().wake(self.kind.name, True)
        return Response(ResultFeed(kind=self.kind, receipt=receipt))

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        """Answer a login that may push; another one is refused, and told which permission it needs."""
        return HttpResponse(status=204, headers={"Allow": ", ".join(self.allowed_methods)})

    def outcome(self, request: Request, operation: Operation) -> HttpResponseBase:
        """Return the results of the page as one page without a ``next`` link."""
        return Response(bytes(operation.result or b""))


class ResultsView(SDataView):
    """Serve ``$syncResults``: record how other nodes applied the changes of this node (SData sync 5.7)."""

    parser_classes = [AtomFeedParser]
    renderer_classes = [FeedRenderer]
    needed_permissions = {"POST": PUSH_FEEDS}

    def post(self, request: Request, kind: str, operation: str) -> HttpResponseBase:
        """Record the results, and that the resources in them need not be resent to the peer any more."""
        with body_of(request, IOBase) as body:
            reader = read_result_feed(cast(BinaryIO, body))
            target = reader.header.digest.origin if reader.header.digest else ""
            speaker = self.sender.speaker(self.kind, target)
            target = speaker.origin if speaker.is_trusted else ""  # all others together: their runs are bounded too
            results = list(reader.entries())
            record_results(self.kind, results, label=_run(request), target=target)
        scope = scope_for(self.kind, self.sender.peer)
        if scope is not None:  # the peer has received the resources that had to be resent
            scope.mark_resent(result.uuid for result in results if result.uuid is not None)
        return HttpResponse("Recorded.", content_type="text/plain")


class UnknownView(SDataView):
    """Answer all other URLs under the dataset URL with a diagnosis."""

    parser_classes = [DigestParser]
    renderer_classes = [DigestRenderer]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate the request, then answer that the URL is unknown.

        Raises:
            UrlNotFound: always, after a successful login.
        """
        APIView.initial(self, request, *args, **kwargs)
        raise UrlNotFound(
            f"Nothing is served at {kwargs['rest']!r}. The dataset has $schema; each kind has $syncDigest, "
            "$syncSource, $syncTarget, $syncResults and $linked."
        )
