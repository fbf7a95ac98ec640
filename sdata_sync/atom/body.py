"""Decompress, count and spool the bytes of a body before they are parsed."""

import zlib
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Protocol, cast

from ..exceptions import BodyTooLarge, DocumentError

CHUNK_BYTES = 64 * 1024
#: A body of up to this size stays in memory; a larger body is written to a temporary file.
SPOOL_BYTES = 2 * 1024 * 1024


class Readable(Protocol):
    """Declare the part of a file's interface that ``chunks_of`` reads from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, or no bytes at the end of the stream."""


def chunks_of(stream: Readable) -> Iterator[bytes]:
    """Yield the bytes of ``stream`` in chunks of 64 KiB."""
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def spool(chunks: Iterable[bytes], *, limit: int, encoding: str = "") -> BinaryIO:
    """Read a body completely and return it as a file that is positioned at its beginning.

    ``limit`` is compared with the decompressed size, in bytes. A small body that decompresses to a large one is refused
    as soon as the count passes ``limit``. No database lock is held while a slow peer sends its body. The caller closes
    the file.

    Raises:
        BodyTooLarge: the decompressed body has more than ``limit`` bytes.
        DocumentError: the content encoding is unknown, or the compressed data is broken or cut off.
    """
    file = cast(BinaryIO, SpooledTemporaryFile(SPOOL_BYTES))  # noqa: SIM115  the caller closes it
    size = 0
    try:
        for chunk in _unpacked(chunks, encoding.strip().lower()):
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"The body is larger than the {limit} bytes that are accepted here.")
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _unpacked(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    if encoding in ("", "identity"):
        yield from chunks
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise DocumentError(f"Expected a body that is plain or encoded with gzip or deflate, received {encoding!r}.")
    # 32 makes zlib detect whether the header is a gzip header or a zlib header.
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        for chunk in chunks:
            while chunk:
                yield unpacker.decompress(chunk, CHUNK_BYTES)
                chunk = unpacker.unconsumed_tail
    except zlib.error as error:
        raise DocumentError(f"The {encoding} encoding of the body is broken: {error}.") from error
    if not unpacker.eof:
        raise DocumentError(f"The {encoding} encoding of the body is cut off.")
