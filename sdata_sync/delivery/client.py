"""HTTP to a peer: its digest, its target. Nothing outside its dataset URL is ever asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import httpx2

from ..atom import names
from ..atom.body import spool
from ..atom.diagnosis import read_diagnoses
from ..atom.digest import read_digest_entry
from ..atom.entry import ReceivedResult
from ..atom.feed import read_result_feed
from ..conf import Credentials, conf
from ..core.digest import Digest
from ..exceptions import DocumentError, FeedError, PeerMisbehaved, PeerRefused, PeerUnreachable

#: The connection went away under the request. A page may be posted again: the second time changes nothing.
_DROPPED = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError, httpx2.CloseError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A peer's answer to a page: what it did not simply apply, and its digest, if it says so."""

    digest: Digest | None
    exceptions: tuple[ReceivedResult, ...]


class PeerClient:
    """Talks to one peer on kept-alive connections, until it is closed."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self.url = url
        headers = {"User-Agent": "django-sdata-sync", "Accept": f"{names.MEDIA_TYPE}, {names.XML_TYPE}"}
        if credentials.token:
            headers["Authorization"] = f"Token {credentials.token}"
        self._http = httpx2.Client(
            headers=headers,
            auth=(credentials.username, credentials.password) if credentials.username else None,
            timeout=httpx2.Timeout(conf.timeout_seconds, connect=min(5.0, conf.timeout_seconds)),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read_digest(self, kind: str) -> Digest:
        """Ask for the peer's digest of ``kind`` (SData sync 5.1).

        Raises:
            PeerError
        """
        with self._send("GET", f"{self.url}/{kind}/$syncDigest") as body:
            try:
                return read_digest_entry(body)
            except (DocumentError, FeedError) as error:
                raise PeerMisbehaved(f"The digest of {self.url}/{kind} cannot be read: {error}") from error

    def post_page(
        self, kind: str, feed: Iterable[bytes], *, run_name: str, run_stamp: str, with_results: bool
    ) -> Answer:
        """Post one page of changes (SData sync 5.3, 5.8).

        ``with_results`` reads what became of each entry; without it the answer is read as far as its digest.

        Raises:
            PeerError: ``PeerRefused`` with status 400 if the ticks do not continue where the peer stands.
        """
        url = f"{self.url}/{kind}/$syncTarget"
        params = {"runName": run_name, "runStamp": run_stamp}
        # Not chunked: WSGI has no way to read a body whose length is not said.
        with self._send("POST", url, content=b"".join(feed), params=params) as body:
            try:
                reader = read_result_feed(body)
                # A digest that does not stand at the beginning is found when all has been read.
                read = reader.entries() if with_results or reader.header.digest is None else ()
                results = tuple(result for result in read if result.status != 200)
                return Answer(digest=reader.header.digest, exceptions=results)
            except (DocumentError, FeedError) as error:
                raise PeerMisbehaved(f"The answer of {url} cannot be read: {error}") from error

    def _send(
        self, method: str, url: str, *, content: bytes | None = None, params: dict[str, str] | None = None
    ) -> BinaryIO:
        headers = {"Content-Type": names.FEED_TYPE} if content is not None else {}
        request = self._http.build_request(method, url, content=content, params=params, headers=headers)
        try:
            try:
                return self._exchange(request)
            except _DROPPED:
                return self._exchange(request)
        except httpx2.TransportError as error:
            raise PeerUnreachable(f"{url}: {type(error).__name__}: {error}") from error
        except (httpx2.DecodingError, DocumentError) as error:
            raise PeerMisbehaved(f"{url}: {error}") from error

    def _exchange(self, request: httpx2.Request) -> BinaryIO:
        response = self._http.send(request, stream=True)
        try:
            body = spool(response.iter_bytes(), limit=conf.max_body_bytes)
        finally:
            response.close()
        if response.status_code == 200:
            return body
        with body:
            said = "; ".join(diagnosis.message for diagnosis in read_diagnoses(body) if diagnosis.message)
        text = f"{request.method} {request.url.copy_with(query=None)}: {response.status_code} {said}".strip()
        raise PeerRefused(text, status=response.status_code)
