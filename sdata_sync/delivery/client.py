"""Send HTTP requests to a peer: its digest, source, target and results. No request leaves the peer's dataset URL."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit
from uuid import UUID

import httpx2
from django.core.exceptions import ImproperlyConfigured

from ..atom import names
from ..atom.body import spool
from ..atom.diagnosis import read_diagnoses
from ..atom.digest import read_digest_entry, render_digest_entry
from ..atom.feed import read_result_feed
from ..atom.schema import read_schema
from ..atom.tracking import read_polling_millis
from ..conf import Credentials, conf
from ..exceptions import (
    DocumentError,
    FeedError,
    KindNotShared,
    PeerError,
    PeerMisbehaved,
    PeerRefused,
    PeerUnreachable,
)
from ..sync.bounds import check_size
from ..sync.db.clock import now
from ..sync.select.feed import MAX_BYTES

if TYPE_CHECKING:
    from ..atom.entry import ReceivedResult
    from ..core.digest import Digest
    from ..models import Peer
    from ..sync.runs import RunLabel

#: Errors of a connection that was dropped during a request, which is then repeated: a repetition changes nothing.
_DROPPED = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError, httpx2.CloseError)
#: The shortest and the longest pause between two polls of an operation, whatever pause the peer wishes.
_POLLING_MILLIS = (20, 5000)
#: The greatest length, in characters, of a link that a peer sends.
MAX_URL = 2000
#: How often the path of a URL may be quoted.
MAX_QUOTING = 4
#: The greatest number of consecutive pages without an entry: rows of a page may have changed since they were counted.
MAX_EMPTY_PAGES = 100
#: The statuses with which a peer answers that does not have the URL.
ABSENT = (404, 405, 410, 501)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A peer's answer to a page: its digest, if the answer has one, and the results with another status than 200."""

    digest: Digest | None
    exceptions: tuple[ReceivedResult, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePart:
    """A part of a file at a peer: its bytes from ``start`` on, and the size and the ETag of the whole file."""

    body: BinaryIO
    start: int
    size: int
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Response:
    url: str
    status: int
    location: str
    body: BinaryIO
    headers: Mapping[str, str]


@cache
def _ssl_context() -> ssl.SSLContext:
    # Made once: reading all certificates takes longer than a request.
    return httpx2.create_ssl_context()


#: Replaces the network for new clients; tests set it.
default_transport: httpx2.BaseTransport | None = None


class PeerClient:
    """Sends requests to one peer on kept-alive connections, until it is closed.

    ``timeout`` is the longest silence, ``total`` the longest time for one answer, both in seconds. ``transport``
    replaces the network.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        timeout: float | None = None,
        total: float | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = url
        #: The seconds by which the peer's clock was ahead of this node's at the last answer; ``None`` if not known.
        self.ahead_seconds: float | None = None
        seconds = conf.timeout_seconds if timeout is None else timeout
        # The timeout bounds silence only: without this bound a peer could send one byte at a time.
        self._total_seconds = 10 * seconds if total is None else total
        headers = {"User-Agent": "django-sdata-sync", "Accept": f"{names.MEDIA_TYPE}, {names.XML_TYPE}"}
        if credentials.token:
            headers["Authorization"] = f"Token {credentials.token}"
        self._http = httpx2.Client(
            headers=headers,
            auth=(credentials.username, credentials.password) if credentials.username else None,
            timeout=httpx2.Timeout(seconds, connect=min(5.0, seconds)),
            follow_redirects=False,
            verify=_ssl_context(),
            transport=transport or default_transport,
        )

    @classmethod
    def for_peer(cls, peer: Peer, *, timeout: float | None = None, total: float | None = None) -> PeerClient:
        """Return a client for ``peer`` that logs in with the credentials of the peer.

        Raises:
            PeerError: ``CREDENTIALS`` has no entry that the peer names, or the entry is wrong.
        """
        try:
            credentials = conf.credentials(peer.credentials)
        except ImproperlyConfigured as error:
            raise PeerError(str(error)) from error
        return cls(peer.url, credentials, timeout=timeout, total=total)

    def __enter__(self) -> PeerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read_digest(self, kind: str) -> Digest:
        """Read the peer's digest of ``kind`` (SData sync 5.1).

        Raises:
            KindNotShared: the peer has no collection of this kind.
            PeerError: the peer cannot be reached, refuses the request, or answers what cannot be read.
        """
        try:
            response = self._send("GET", f"{self.url}/{kind}/$syncDigest")
        except PeerRefused as refusal:
            if refusal.status in ABSENT:
                raise KindNotShared(str(refusal), status=refusal.status) from refusal
            raise
        with response.body as body:
            try:
                return check_size(read_digest_entry(body))
            except (DocumentError, FeedError) as error:
                raise PeerMisbehaved(f"The digest of {self.url}/{kind} cannot be read: {error}") from error

    def read_schema(self, namespace: str) -> dict[str, frozenset[str]]:
        """Read the properties of the peer's kinds of ``namespace``, by element name (SData core 4).

        Raises:
            PeerError: the peer cannot be reached, has no schema, or it cannot be read.
        """
        url = f"{self.url}/$schema"
        with self._send("GET", url, params={"namespace": namespace}).body as body:
            try:
                return read_schema(body)
            except DocumentError as error:
                raise PeerMisbehaved(f"{url} cannot be read: {error}") from error

    def check_push(self, kind: str) -> None:
        """Ask whether this login may push changes of ``kind``; a peer that does not tell is taken to allow it.

        Raises:
            PeerRefused: the login or its permissions are not sufficient.
            PeerError: the peer cannot be reached.
        """
        try:
            self._send("OPTIONS", f"{self.url}/{kind}/$syncTarget").body.close()
        except PeerRefused as refusal:
            if refusal.status in (401, 403):
                raise

    def read_file(self, kind: str, uuid: UUID, path: str, *, start: int, length: int) -> FilePart:
        """Read ``length`` bytes, from the byte ``start``, of a file of the resource ``uuid`` (``contrib.files``).

        Raises:
            PeerError: the peer cannot be reached, does not have the file, or does not say which part it sends.
        """
        url = f"{self.url}/{kind}/$file('{uuid}')"
        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        response = self._send("GET", url, params={"path": path}, headers=wanted)
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", response.headers.get("Content-Range", ""))
        if match is None:
            response.body.close()
            raise PeerMisbehaved(f"{url}: expected the bytes from {start}, received another part.")
        version = response.headers.get("ETag", "")[:200]
        return FilePart(body=response.body, start=int(match[1]), size=int(match[2]), version=version)

    def post_page(self, kind: str, feed: Iterable[bytes], *, run: RunLabel) -> Answer:
        """Post one page of changes (SData sync 5.3, 5.8).

        Raises:
            PeerError: ``PeerRefused`` with status 400 if the ticks of the page do not follow the peer's digest.
        """
        with self.post_feed(kind, b"".join(feed), run=run) as body:
            return read_answer(body, self.url)

    def post_feed(self, kind: str, feed: bytes, *, run: RunLabel) -> BinaryIO:
        """Post one page of changes as it is, and return the result feed.

        Raises:
            PeerError: the peer cannot be reached, refuses the request, or answers what cannot be read.
        """
        # With a length, not chunked: WSGI cannot read a body of unknown length.
        response = self._send("POST", f"{self.url}/{kind}/$syncTarget", content=feed, params=run.params)
        waited = self._wait(response)
        if waited is not response:
            self.delete(waited.url)
        return waited.body

    def post_results(self, kind: str, feed: bytes, *, run: RunLabel) -> None:
        """Post the results of the peer's changes at this node (SData sync 5.7).

        Raises:
            PeerError: ``PeerRefused`` with a status of ``ABSENT`` if the peer does not accept results.
        """
        self._send("POST", f"{self.url}/{kind}/$syncResults", content=feed, params=run.params).body.close()

    def open_source(self, kind: str, target: Digest, *, run: RunLabel, tracking_id: str, count: int) -> RemoteFeed:
        """Have the peer select the changes that ``target`` lacks (SData sync 5.2); return the feed when it is ready.

        With an empty ``tracking_id`` the peer answers within the one request, if it can.

        Raises:
            PeerError: the peer cannot be reached, refuses the request, or answers what cannot be read.
        """
        paging = {"count": str(count), MAX_BYTES: str(conf.max_body_bytes)}
        params = {**({"trackingID": tracking_id} if tracking_id else {}), **run.params, **paging}
        entry = render_digest_entry(target, now=now()).encode()
        url = f"{self.url}/{kind}/$syncSource"
        response = self._send("POST", url, content=entry, params=params, content_type=names.ENTRY_TYPE)
        ready = self._wait(response, params=paging)
        operation = ready.url if ready is not response else ""
        return RemoteFeed(client=self, first=ready.body, url=ready.url or url, operation=operation)

    def read_page(self, url: str, *, base: str) -> tuple[str, BinaryIO]:
        """Return the page that a ``next`` link of the page at ``base`` leads to, and its URL.

        Raises:
            PeerError: the peer cannot be reached or refuses, or the link leads out of its dataset URL.
        """
        address = self._inside(url, base)
        return address, self._send("GET", address).body

    def delete(self, url: str) -> None:
        """Delete an operation at the peer; ignore a failure, since the operation expires."""
        with suppress(PeerError):
            self._send("DELETE", url).body.close()

    def _wait(self, response: _Response, params: dict[str, str] | None = None) -> _Response:
        """Poll until an operation is done; return an answer that is not an operation as it is."""
        deadline = time.monotonic() + conf.operation_seconds
        while response.status == 202:
            with response.body:
                wished = read_polling_millis(response.body)
            if not response.location:
                raise PeerMisbehaved(f"{response.url}: expected a Location with the answer 202, found none.")
            if time.monotonic() > deadline:
                raise PeerUnreachable(f"{response.location} is not done after {conf.operation_seconds} s.")
            time.sleep(min(max(wished, _POLLING_MILLIS[0]), _POLLING_MILLIS[1]) / 1000)
            address = self._inside(response.location, response.url)
            # A Location with a query keeps it: params would replace the query.
            extra = None if urlsplit(address).query else params
            following = self._send("GET", address, params=extra)
            response = _Response(
                url=address,
                status=following.status,
                location=following.location or address,
                body=following.body,
                headers=following.headers,
            )
        return response

    def _inside(self, url: str, base: str) -> str:
        """Return ``url``, which the peer sent, as an absolute one; refuse it if it leads out of the dataset.

        Raises:
            PeerMisbehaved: the URL leads out of the dataset URL of the peer.
        """
        try:
            address = urljoin(base, url)
            is_ours = self._is_below(address)
        except ValueError:  # not a URL
            is_ours = False
        if not is_ours:
            raise PeerMisbehaved(f"Expected a URL below {self.url}, received {url[:200]!r}; it is not followed.")
        return address

    def _is_below(self, address: str) -> bool:
        ours, theirs = urlsplit(self.url), urlsplit(address)
        if (ours.scheme, ours.hostname, ours.port) != (theirs.scheme, theirs.hostname, theirs.port):
            return False
        path = theirs.path.lower()
        if not path.startswith(f"{ours.path.lower()}/") or theirs.username or theirs.password:
            return False
        # A server, or a proxy before it, may resolve dot segments after it has unquoted the path, even more than once.
        for _ in range(MAX_QUOTING):
            path, quoted = unquote(path), path
            if ".." in path or "\\" in path:
                return False
            if path == quoted:
                return True
        return False

    def _send(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
        content_type: str = names.FEED_TYPE,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> _Response:
        headers = {**headers, **({"Content-Type": content_type} if content is not None else {})}
        try:
            request = self._http.build_request(method, url, content=content, params=params, headers=headers)
            try:
                return self._exchange(request)
            except _DROPPED:
                return self._exchange(request)
        except httpx2.TransportError as error:
            raise PeerUnreachable(f"{url}: {type(error).__name__}: {error}") from error
        except (httpx2.DecodingError, httpx2.InvalidURL, DocumentError) as error:
            raise PeerMisbehaved(f"{url[:500]}: {error}") from error

    def _in_time(self, request: httpx2.Request, chunks: Iterator[bytes]) -> Iterator[bytes]:
        deadline = time.monotonic() + self._total_seconds
        for chunk in chunks:
            yield chunk
            if time.monotonic() > deadline:
                raise httpx2.ReadTimeout(
                    f"The answer was incomplete after {self._total_seconds:.0f} s.", request=request
                )

    def _exchange(self, request: httpx2.Request) -> _Response:
        response = self._http.send(request, stream=True)
        self._note_clock(response.headers.get("Date", ""))
        try:
            body = spool(self._in_time(request, response.iter_bytes()), limit=conf.max_body_bytes)
        finally:
            response.close()
        if response.status_code in (200, 201, 202, 204, 206):
            location = response.headers.get("Location", "")
            url = str(request.url.copy_with(query=None))
            return _Response(
                url=url, status=response.status_code, location=location, body=body, headers=response.headers
            )
        with body:
            said = "; ".join(diagnosis.message for diagnosis in read_diagnoses(body) if diagnosis.message)
        text = f"{request.method} {request.url.copy_with(query=None)}: {response.status_code} {said}".strip()
        raise PeerRefused(text, status=response.status_code)

    def _note_clock(self, date: str) -> None:
        with suppress(ValueError):
            shown = parsedate_to_datetime(date).timestamp() + 0.5  # the header has whole seconds
            self.ahead_seconds = shown - now() / 1000


class RemotePage:
    """One page of a source feed at a peer, as it was received, in ``body``."""

    def __init__(self, feed: RemoteFeed, body: BinaryIO) -> None:
        self.body = body
        self._feed = feed
        #: The page after this one, once it has been requested.
        self.following: RemotePage | None = None

    def fetch_next(self, next_url: str) -> None:
        """Request the page that ``next_url`` leads to (network), unless the URL is empty or it was requested already.

        Raises:
            PeerError: the peer cannot be reached or refuses, the link leads out of the dataset URL of the peer, or it
                leads to a page that was read before.
        """
        if next_url and self.following is None:
            self.following = RemotePage(self._feed, self._feed.request(next_url))

    def finish(self, entries: int, next_url: str) -> None:
        """Count the ``entries`` of this page, then make sure that the next page is requested.

        Raises:
            PeerMisbehaved: more than ``MAX_EMPTY_PAGES`` pages in a row had no entry.
            PeerError: as for ``fetch_next``.
        """
        self._feed.count(entries)
        self.fetch_next(next_url)


class RemoteFeed:
    """The pages of a source feed at a peer, in order."""

    def __init__(self, *, client: PeerClient, first: BinaryIO, url: str, operation: str) -> None:
        self._client = client
        self._operation = operation
        self._url = url
        self._seen: set[str] = set()
        self._empty_pages = 0
        self._first = first

    def pages(self) -> Generator[RemotePage, None, None]:
        """Yield each page; the caller calls ``RemotePage.finish`` when it has read the page.

        The caller may call ``RemotePage.fetch_next`` before that, in another thread, to receive the next page while
        it applies the present one. A page is closed when the next one is asked for.
        """
        page: RemotePage | None = RemotePage(self, self._first)
        while page is not None:
            try:
                with page.body:
                    yield page
            except GeneratorExit:
                if page.following is not None:
                    page.following.body.close()
                raise
            page = page.following

    def request(self, next_url: str) -> BinaryIO:
        """Request the page that ``next_url`` leads to (network).

        Raises:
            PeerError: as for ``RemotePage.fetch_next``.
        """
        if len(next_url) > MAX_URL:
            raise PeerMisbehaved(f"Expected a next link of {MAX_URL} characters at most, received {len(next_url)}.")
        if next_url in self._seen:
            raise PeerMisbehaved(f"The next link {next_url[:200]!r} leads to a page that was read before.")
        self._seen.add(next_url)
        self._url, body = self._client.read_page(next_url, base=self._url)
        if "$syncsource('" in self._url.lower():
            self._operation = self._url.partition("?")[0]  # an operation that the peer has named itself
        return body

    def count(self, entries: int) -> None:
        """Count the entries of the last page, and the pages without entries.

        Raises:
            PeerMisbehaved: more than ``MAX_EMPTY_PAGES`` pages in a row had no entry.
        """
        self._empty_pages = 0 if entries else self._empty_pages + 1
        if self._empty_pages > MAX_EMPTY_PAGES:
            raise PeerMisbehaved(f"{MAX_EMPTY_PAGES} pages without an entry, and a link to yet another.")

    def close(self) -> None:
        """Delete the operation at the peer, which is not needed any more."""
        if self._operation:
            self._client.delete(self._operation)


def read_answer(body: BinaryIO, url: str) -> Answer:
    """Read a result feed; ``url`` is for the message.

    Raises:
        PeerMisbehaved: the answer is not a result feed.
    """
    try:
        reader = read_result_feed(body)
        # A digest behind the entries is found when all entries have been read.
        results = tuple(result for result in reader.entries() if result.status != 200)
        return Answer(digest=reader.header.digest, exceptions=results)
    except (DocumentError, FeedError) as error:
        raise PeerMisbehaved(f"The answer of {url} cannot be read: {error}") from error
