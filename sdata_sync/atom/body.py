"""The bytes of a body: unpacked, counted and spooled before anything else is done with them."""

import zlib
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Protocol, cast

from ..exceptions import BodyTooLarge, DocumentError

CHUNK_BYTES = 64 * 1024
#: Up to here a body stays in memory, beyond it goes to a temporary file.
SPOOL_BYTES = 2 * 1024 * 1024


class Readable(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


def chunks_of(stream: Readable) -> Iterator[bytes]:
    """Yield what ``stream`` holds, piece by piece."""
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def spool(chunks: Iterable[bytes], *, limit: int, encoding: str = "") -> BinaryIO:
    """Read a body whole, and return it as a file at its beginning.

    The unpacked size counts: a small body that unpacks to a large one is refused as soon as it passes
    ``limit`` bytes. A slow sender costs a file, never a lock.

    Raises:
        BodyTooLarge: more than ``limit`` bytes.
        DocumentError: an unknown content encoding, or broken compressed data.
    """
    file = cast(BinaryIO, SpooledTemporaryFile(SPOOL_BYTES))  # noqa: SIM115  it is the caller's to close
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
    # 32 lets zlib find out by itself whether the header is that of gzip or of zlib.
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
