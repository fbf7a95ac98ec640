"""Serve the files of the rows that a peer may read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.core.exceptions import SuspiciousOperation
from django.core.files import File
from django.core.files.storage import Storage
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from ...api.errors import UrlNotFound
from ...api.parsers import DigestParser
from ...api.permissions import READ_FEEDS
from ...api.renderers import EntryRenderer
from ...api.views.base import SDataView
from ...models import TrackedResource
from ...sync.scope import row_scope
from .paths import files_of
from .wanted import is_here

_CHUNK_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


class FileView(SDataView):
    """Serve ``accounts/$file('uuid')?path=…``: a file of the resource, or the part of it in the header ``Range``."""

    parser_classes = [DigestParser]
    renderer_classes = [EntryRenderer]
    needed_permissions = {"GET": READ_FEEDS, "HEAD": READ_FEEDS}

    def get(self, request: Request, kind: str, operation: str, uuid: str) -> HttpResponseBase:
        """Answer with the bytes.

        Raises:
            UrlNotFound: the resource, or a file of it with this path, is not here; or the caller may not read it.
        """
        path = request.query_params.get("path", "")
        storage = self._storage(request, uuid, path)
        try:
            size = storage.size(path)
            version = _version(storage, path, size)
            file = storage.open(path, "rb")
        except (OSError, SuspiciousOperation) as error:
            raise UrlNotFound(f"The file {path[:200]!r} is not in the storage of this node.") from error
        start, end = _range(request.headers.get("Range", ""), size)
        response = StreamingHttpResponse(
            _chunks(file, start, end - start),
            status=206 if (start, end) != (0, size) else 200,
            content_type="application/octet-stream",
        )
        response["Content-Length"] = str(end - start)
        response["Content-Range"] = f"bytes {start}-{max(end - 1, start)}/{size}"
        response["Accept-Ranges"] = "bytes"
        response["ETag"] = version
        # A browser shows no file of a peer as a page of this site.
        response["Content-Disposition"] = "attachment"
        response["X-Content-Type-Options"] = "nosniff"
        return response

    def _storage(self, request: Request, uuid: str, path: str) -> Storage:
        missing = UrlNotFound(f"There is no {self.kind.name} {uuid[:60]!r} with the file {path[:200]!r} here.")
        try:
            rows = TrackedResource.objects.using(self.kind.database).filter(kind=self.kind.name, uuid=UUID(uuid))
        except ValueError:
            raise missing from None
        tracked = rows.select_related("endpoint").first()
        key = None if tracked is None else tracked.local_key
        if tracked is None or key is None:
            raise missing
        scope = row_scope(self.kind, self.sender.peer)
        if scope is not None and not scope.among([key]):
            raise missing
        storage = files_of(self.kind, key).get(path)
        if storage is None or not is_here(self.kind, tracked, path):
            raise missing
        return storage


def _version(storage: Storage, path: str, size: int) -> str:
    """Return an ETag that changes when the file is replaced, as far as the storage tells."""
    changed = ""
    with suppress(NotImplementedError):
        changed = storage.get_modified_time(path).isoformat()
    return f'"{size}-{changed}"'


def _range(header: str, size: int) -> tuple[int, int]:
    """Return the first byte, and one more than the last, that are asked for; the whole file if the header is none."""
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        return 0, size
    first, last = int(match[1]), int(match[2] or size)
    start = min(first, size)
    return start, max(start, min(last + 1, size))


def _chunks(file: File[Any], start: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while length > 0 and (chunk := file.read(min(_CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk
