"""Renderers: core values as Atom documents, errors as diagnoses."""

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
    from ..resources import SyncResource
    from ..sync.apply.receive import Receipt


@dataclass(frozen=True, kw_only=True)
class Diagnoses:
    """The data of a response that says what is wrong with the whole request."""

    diagnoses: tuple[Diagnosis, ...]


class _SDataRenderer(BaseRenderer):
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the document."""
        if isinstance(data, Diagnoses):
            return render_diagnoses(data.diagnoses).encode()
        if isinstance(data, Tracking):
            return render_tracking(data).encode()
        if isinstance(data, bytes):  # a document that was rendered before, and kept
            return data
        return b"" if data is None else self.render_document(data)

    def render_document(self, data: Any) -> bytes:
        """Return the document for the data of a request that succeeded."""
        raise NotImplementedError


class DigestRenderer(_SDataRenderer):
    """Writes a digest as one Atom entry (SData sync 4.2)."""

    media_type = names.ENTRY_TYPE
    format = "atom"

    def render_document(self, data: Digest) -> bytes:
        """Return the entry."""
        return render_digest_entry(data, now=now()).encode()


class EntryRenderer(_SDataRenderer):
    """Passes entries on that are rendered already."""

    media_type = names.ENTRY_TYPE
    format = "atom"


class FeedRenderer(_SDataRenderer):
    """Passes feeds on that are rendered already, page by page."""

    media_type = names.FEED_TYPE
    format = "atom"


@dataclass(frozen=True, kw_only=True)
class ResultFeed:
    """The data of the answer to a posted feed."""

    resource: SyncResource
    receipt: Receipt


class ResultFeedRenderer(FeedRenderer):
    """Writes what became of a feed (SData sync 5.3): one page, whatever the number of entries."""

    def render_document(self, data: ResultFeed) -> bytes:
        """Return the feed."""
        return render_results(data.resource, data.receipt.results, data.receipt.digest)
