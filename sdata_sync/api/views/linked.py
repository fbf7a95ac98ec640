"""Serve ``$linked``, the table of uuids and local keys (SData sync 1.3)."""

from __future__ import annotations

from io import IOBase
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from uuid import UUID

from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from lxml import etree
from rest_framework.request import Request
from rest_framework.response import Response

from ...atom.diagnosis import Diagnosis
from ...atom.entry import render_resource
from ...atom.linked import Link, read_batch, read_link, render_link_result
from ...atom.renderer import render_feed
from ...core.text import fold
from ...exceptions import FeedError, LinkError, SyncError
from ...sync.content.rows import read_rows
from ...sync.db.clock import now
from ...sync.identity.link import link, relink, unlink
from ...sync.log.digests import lock_digest
from ...sync.log.tracked import tracked_rows
from ...sync.scope import row_scope
from ...sync.select.catalogue import Shown, is_linked, linked_section, show
from ...sync.stamp.stamper import check_and_assign_ticks
from ...turns import write_transaction
from ..errors import UrlNotFound
from ..parsers import AtomFeedParser, LinkParser
from ..permissions import LINK_RESOURCES, READ_FEEDS
from ..renderers import EntryRenderer, FeedRenderer
from .base import SDataView, body_of, query_of
from .resources import page_of, render_section

if TYPE_CHECKING:
    from ...kind import Kind
    from ...models import Peer


class _Links:
    """Read and change the links of one resource within the scope of ``peer``."""

    def __init__(self, kind: Kind, peer: Peer | None) -> None:
        self.kind = kind
        self._rows = row_scope(kind, peer)
        self.scope = None if self._rows is None else self._rows.allowed

    def url(self, uuid: UUID | None) -> str:
        return f"{self.kind.endpoint}/$linked('{uuid}')"

    def entry(self, shown: Shown, *, alone: bool = False) -> str:
        title = f"Linked {self.kind.element_name} {shown.uuid}"
        url = self.url(shown.uuid)
        return render_resource(id=url, title=title, updated=shown.updated, payload=shown.payload, alone=alone)

    def shown(self, uuid: UUID, *, bare: bool = False) -> Shown:
        """Return the row that is linked to ``uuid``.

        Raises:
            UrlNotFound: no row in the scope of the peer is linked to ``uuid``.
        """
        rows = is_linked(tracked_rows(self.kind)).filter(uuid=uuid)
        key = rows.values_list("local_key", flat=True).first()
        # Checked first, so that the same queries are made for a row outside the scope and for one that does not exist.
        may_have = self._may_have(key)
        found = show(self.kind, [key], bare=bare) if key is not None and may_have else {}
        if key is None or key not in found:
            raise UrlNotFound(f"No row of {self.kind.name} is linked to {uuid}.")
        return found[key]

    def _may_have(self, key: str | None) -> bool:
        return self._rows is None or bool(self._rows.among([] if key is None else [key]))

    def _check(self, wanted: Link) -> None:
        kind = self.kind.name
        if fold(wanted.kind) != fold(kind):
            raise FeedError(f"Expected the sdata:url of one of the {kind}, received one of {wanted.kind[:80]!r}.")
        if not self._may_have(wanted.key) or wanted.key not in read_rows(self.kind, [wanted.key]):
            raise FeedError(f"There is no {kind}({wanted.key!r}) here that could be linked.")

    def _check_present(self, uuid: UUID | None) -> None:
        """Refuse a uuid that belongs to a row outside the scope of the peer.

        Raises:
            LinkError: the uuid belongs to such a row.
        """
        present = tracked_rows(self.kind).filter(uuid=uuid, local_key__isnull=False) if uuid else None
        key = None if present is None else present.values_list("local_key", flat=True).first()
        if key is not None and not self._may_have(key):
            raise LinkError(f"{uuid} cannot be given to that row.")

    def create(self, wanted: Link) -> tuple[UUID, bool]:
        """Link a row; return its uuid, and True if the row had no uuid before.

        Raises:
            FeedError: the row is of another kind, does not exist or is outside the scope of the peer.
            LinkError: the row has another uuid, or the uuid cannot be given to it.
        """
        self._check(wanted)
        kind = self.kind
        with write_transaction(kind.database):
            lock_digest(kind)
            linked = is_linked(tracked_rows(kind)).filter(local_key=wanted.key)
            present = linked.values_list("uuid", flat=True).first()
            if present is not None and wanted.uuid not in (None, present):
                raise LinkError(
                    f"{kind.name}({wanted.key!r}) is linked to {present} already; a PUT on "
                    f"$linked('{wanted.uuid}') gives it another uuid."
                )
            self._check_present(wanted.uuid)
            uuid = link(kind, wanted.key, wanted.uuid)
        check_and_assign_ticks(kind)
        return uuid, present is None

    def replace(self, uuid: UUID, wanted: Link) -> None:
        self._check(wanted)
        with write_transaction(self.kind.database):
            lock_digest(self.kind)
            self._check_present(uuid)
            relink(self.kind, uuid, wanted.key)
        check_and_assign_ticks(self.kind)

    def delete(self, uuid: UUID) -> None:
        self.shown(uuid, bare=True)
        with write_transaction(self.kind.database):
            lock_digest(self.kind)
            unlink(self.kind, uuid)


class _LinkedBase(SDataView):
    parser_classes = [LinkParser]
    links: _Links

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method in self.needed_permissions:  # not for a method that is refused, nor for OPTIONS
            check_and_assign_ticks(self.kind)  # a row with a mark and no tick would count as not linked
        self.links = _Links(self.kind, self.sender.peer)


class LinkedView(_LinkedBase):
    """Serve ``$linked``: list the linked resources, and link a row."""

    renderer_classes = [FeedRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS, "POST": LINK_RESOURCES}

    def get(self, request: Request, **url: str) -> Response:
        """Answer with a page of linked resources; with an empty ``select`` without their content."""
        kind, links = self.kind, self.links
        after, start_index, count = page_of(request)
        bare = _is_bare(request)
        try:
            found = linked_section(kind, links.scope, after=after, start_index=start_index, count=count, bare=bare)
        except ValidationError as error:
            raise FeedError(" ".join(error.messages)) from error
        content = render_section(
            found,
            map(links.entry, found.resources),
            url=f"{kind.endpoint}/$linked",
            title=f"Linked {kind.name}",
            start_index=start_index,
            count=count,
            **({"select": ""} if bare else {}),
        )
        return Response(content)

    def post(self, request: Request, kind: str, operation: str) -> Response:
        """Link a row that has no uuid yet; repeating an existing link is allowed."""
        links = self.links
        uuid, is_new = links.create(body_of(request, Link))
        return Response(
            links.entry(links.shown(uuid), alone=True).encode(),
            status=201 if is_new else 200,
            headers={"Location": links.url(uuid)},
            content_type=f"{EntryRenderer.media_type}; charset=utf-8",
        )


def _is_bare(request: Request) -> bool:
    return query_of(request).get("select") == ""


class LinkedResourceView(_LinkedBase):
    """Serve ``$linked('uuid')``: one link."""

    renderer_classes = [EntryRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS, "PUT": LINK_RESOURCES, "DELETE": LINK_RESOURCES}

    def get(self, request: Request, kind: str, operation: str, uuid: str) -> Response:
        """Answer with the linked resource; with an empty ``select`` without its content."""
        shown = self.links.shown(_as_uuid(uuid), bare=_is_bare(request))
        return Response(self.links.entry(shown, alone=True).encode())

    def put(self, request: Request, kind: str, operation: str, uuid: str) -> Response:
        """Link the uuid to another row; the previous uuid of that row becomes an alias."""
        wanted = _as_uuid(uuid)
        self.links.replace(wanted, body_of(request, Link))
        return Response(self.links.entry(self.links.shown(wanted), alone=True).encode())

    def delete(self, request: Request, kind: str, operation: str, uuid: str) -> HttpResponseBase:
        """Remove the link and keep the row."""
        self.links.delete(_as_uuid(uuid))
        return HttpResponse("Deleted.", content_type="text/plain")


def _as_uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise UrlNotFound(f"Expected $linked('uuid'), received {text[:80]!r}.") from error


class LinkedBatchView(_LinkedBase):
    """Serve ``$linked/$batch``: many links in one request, each applied separately (SData core 13.3)."""

    parser_classes = [AtomFeedParser]
    renderer_classes = [FeedRenderer]
    needed_permissions = {"POST": LINK_RESOURCES}

    def post(self, request: Request, kind: str, operation: str) -> Response:
        """Apply the entries in their order, and answer with one result per entry."""
        with body_of(request, IOBase) as body:
            entries = list(read_batch(cast(BinaryIO, body)))  # completely, before anything is changed
        answers = [self._carry_out(element, number) for number, element in enumerate(entries, start=1)]
        url = f"{self.kind.endpoint}/$linked/$batch"
        feed = render_feed(answers, url=url, title=f"Links of {self.kind.name}", now=now())
        return Response(b"".join(feed))

    def _carry_out(self, element: etree._Element, number: int) -> str:
        method, uuid, payload, diagnosis = "POST", None, "", None
        try:
            wanted = read_link(element, f"feed/entry[{number}]")
            method, uuid = wanted.method, wanted.uuid
            uuid, status = self._act(wanted)
            payload = "" if method == "DELETE" else self.links.shown(uuid).payload
        except (SyncError, UrlNotFound) as error:
            status = int(getattr(error, "status", getattr(error, "status_code", 400)))
            code = getattr(error, "application_code", "NotLinked")
            diagnosis = Diagnosis(message=str(error), application_code=code)
        return render_link_result(
            id=self.links.url(uuid), method=method, status=status, payload=payload, diagnosis=diagnosis, now=now()
        )

    def _act(self, wanted: Link) -> tuple[UUID, int]:
        if wanted.method == "POST":
            uuid, is_new = self.links.create(wanted)
            return uuid, 201 if is_new else 200
        if wanted.uuid is None:
            raise FeedError("Expected a uuid, found none.")
        if wanted.method == "PUT":
            self.links.replace(wanted.uuid, wanted)
        elif wanted.method == "DELETE":
            self.links.delete(wanted.uuid)
        elif wanted.method != "GET":
            raise FeedError(f"Expected an httpMethod of POST, PUT, DELETE or GET, received {wanted.method[:20]!r}.")
        return wanted.uuid, 200
