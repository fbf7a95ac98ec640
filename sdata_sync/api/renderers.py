"""Render core values as Atom documents, and errors as diagnoses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rest_framework.renderers import BaseRenderer

from ..atom import names
from ..atom.diagnosis import Diagnosis, render_diagnoses
from ..atom.digest import render_digest_entry
from ..atom.tracking import Tracking, render_tracking
from ..sync.apply.results import render_results
from ..sync.db.clock import now

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind
    from ..sync.apply.receive import Receipt


@dataclass(frozen=True, kw_only=True)
class Diagnoses:
    """Hold the data of a response to a request that failed as a whole."""

    diagnoses: tuple[Diagnosis, ...]


class _SDataRenderer(BaseRenderer):
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the document as bytes."""
        if isinstance(data, Diagnoses):
            return render_diagnoses(data.diagnoses).encode()
        if isinstance(data, Tracking):
            return render_tracking(data).encode()
        if isinstance(data, bytes):  # a document that is rendered already
            return data
        return b"" if data is None else self.render_document(data)

    def render_document(self, data: Any) -> bytes:
        """Return the document for the data of a successful request."""
        raise NotImplementedError


class DigestRenderer(_SDataRenderer):
    """Render a digest as one Atom entry (SData sync 4.2)."""

    media_type = names.ENTRY_TYPE
    format = "atom"

    def render_document(self, data: Digest) -> bytes:
        """Return the entry as bytes."""
        return render_digest_entry(data, now=now()).encode()


class EntryRenderer(_SDataRenderer):
    """Return entries that are rendered already."""

    media_type = names.ENTRY_TYPE
    format = "atom"


class FeedRenderer(_SDataRenderer):
    """Return pages of feeds that are rendered already."""

    media_type = names.FEED_TYPE
    format = "atom"


@dataclass(frozen=True, kw_only=True)
class ResultFeed:
    """Hold the data of the response to a posted feed."""

    kind: Kind
    receipt: Receipt


class ResultFeedRenderer(FeedRenderer):
    """Render the results of a posted feed as one page (SData sync 5.3)."""

    def render_document(self, data: ResultFeed) -> bytes:
        """Return the result feed as bytes."""
        return render_results(data.kind, data.receipt.results, data.receipt.digest)
