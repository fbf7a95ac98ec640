"""Render the results of received entries for their sender (SData sync 5.3, SData core 13.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ...atom.diagnosis import Diagnosis, Severity
from ...atom.entry import Entry, Result, render_result
from ...atom.renderer import render_feed
from ..db.clock import now
from ..select.changes import entry_id

if TYPE_CHECKING:
    from ...core.decision import Resolution
    from ...core.digest import Digest
    from ...exceptions import PayloadError
    from ...kind import Kind
    from ...models import TrackedResource

#: The message of a result for an entry that this node contains already.
UNCHANGED = "Unchanged"


def result_of(kind: Kind, entry: Entry, tracked: TrackedResource | None, *, message: str, method: str = "") -> Result:
    """Return the result of an entry that was applied or ignored."""
    return Result(
        uuid=entry.uuid,
        state=entry.state,
        status=200,
        message=message,
        method=method or ("DELETE" if entry.is_deleted else "PUT"),
        id=entry_id(kind, None if tracked is None else tracked.local_key, entry.uuid),
    )


def created_result(result: Result, url: str) -> Result:
    """Return ``result`` for a resource that was created with the URL ``url``."""
    return Result(
        uuid=result.uuid,
        state=result.state,
        status=result.status,
        message=result.message,
        method=result.method,
        id=url,
        location=url,
    )


def lost_result(kind: Kind, entry: Entry, tracked: TrackedResource, outcome: Resolution) -> Result:
    """Return the result of an entry that lost a conflict."""
    diagnosis = Diagnosis(
        severity=Severity.WARNING,
        application_code="ConflictLost",
        message=f"Changed on both sides; this side's version stays (by {outcome.by}).",
    )
    result = result_of(kind, entry, tracked, message="Conflict")
    return replace(result, status=409, diagnoses=(diagnosis,))


def refused_result(
    kind: Kind, entry: Entry, tracked: TrackedResource | None, status: int, code: str, reason: str
) -> Result:
    """Return the result of an entry that is not applied, with the HTTP ``status`` 403 or 409."""
    diagnosis = Diagnosis(severity=Severity.ERROR, application_code=code, message=reason)
    result = result_of(kind, entry, tracked, message="Refused")
    return replace(result, status=status, diagnoses=(diagnosis,))


def deferred_result(result: Result, error: PayloadError) -> Result:
    """Return the result of an entry that could not be written; it replaces ``result``."""
    diagnosis = Diagnosis(
        severity=Severity.WARNING,
        application_code=error.application_code,
        message=f"Kept, to be tried again: {error.public}",
        payload_path=error.payload_path,
    )
    return replace(result, status=202, message="Deferred", diagnoses=(diagnosis,))


def render_results(kind: Kind, results: Iterable[Result], digest: Digest) -> bytes:
    """Return the result feed: one page with all ``results``, and the digest of this node after the feed."""
    entries = (
        render_result(
            result,
            title=f"{kind.element_name} {result.uuid}",
            element=kind.element_name,
            namespace=kind.namespace,
        )
        for result in results
    )
    feed = render_feed(
        entries,
        url=f"{kind.endpoint}/$syncTarget",
        title=f"Results for {kind.name}",
        digest=digest,
        now=now(),
    )
    return b"".join(feed)
