"""Select the changes that a digest lacks, read the rows and render the entries, as of one moment (SData sync 2.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Coalesce

from ...atom.entry import render_entry
from ...atom.payload import Text, identity
from ...atom.text import replace_forbidden
from ...conf import conf
from ...core.digest import Digest
from ...core.ranges import TickRange, missing_ranges
from ...core.state import SyncState, same_endpoint
from ...models import DeferredEntry, DigestEntry, TrackedResource
from ...registry import registry
from ..content.cascade import kinds_within_reach
from ..content.conditions import told_digests
from ..content.contents import keys_for, read_contents
from ..db.clock import now
from ..db.faults import describe, ends_page
from ..db.prepared import PreparedQuery
from ..log.wakeup import wake_after_commit
from ..stamp.stamper import check_and_assign_ticks

if TYPE_CHECKING:
    from ...kind import Kind
    from ...relations import Keys
    from ..log.digests import StoredDigest
    from ..scope import Scope
    from .oversize import PeerLimit

#: Up to this number, endpoints are queried one by one; for more, one query finds those that have resources here.
FEW = 8


def missing_and_inhabited(
    kind: Kind,
    stored: StoredDigest,
    target: Digest,
    *,
    wanted: Callable[[str], bool] = lambda endpoint: True,
) -> list[tuple[TickRange, bool]]:
    """Return the ranges of ticks that ``target`` lacks, each with True if this node may have resources in it.

    ``wanted`` restricts the endpoints. With many endpoints, this node has no version of most of them, because other
    endpoints have changed the same rows since.
    """
    ranges = [missing for missing in missing_ranges(stored.value, target) if wanted(missing.endpoint)]
    if len(ranges) <= FEW:
        return [(missing, True) for missing in ranges]
    tracked = TrackedResource.objects.filter(kind=kind.name, endpoint=OuterRef("endpoint"))
    entries = DigestEntry.objects.using(kind.database).filter(Exists(tracked), digest=kind.name)
    inhabited = set(entries.values_list("endpoint_id", flat=True))
    return [(missing, stored.ensure_endpoint_id(missing.endpoint) in inhabited) for missing in ranges]


def in_range(kind: Kind, stored: StoredDigest, missing: TickRange) -> QuerySet[TrackedResource]:
    """Return the resources whose last change is in ``missing``."""
    return TrackedResource.objects.using(kind.database).filter(
        kind=kind.name,
        endpoint_id=stored.ensure_endpoint_id(missing.endpoint),
        tick__gte=missing.start,
        tick__lt=missing.end,
    )


logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Page:
    """Hold one page of what a target lacks.

    ``entries`` are rendered; ``states`` and ``rows`` belong to them, in the same order. ``cursor`` is the target's
    digest as if the target had applied the whole page: the next page is what that digest lacks. ``is_last`` is true if
    there is no next page. ``referrers`` is set if an entry is a deletion: this node's digests of the kinds that refer
    to this one. On a page of resent resources, ``resends`` are their uuids, and the next such page begins after the
    primary key ``resend_after``.
    """

    cursor: Digest
    entries: list[str] = field(default_factory=list)
    states: list[SyncState] = field(default_factory=list)
    rows: list[TrackedResource] = field(default_factory=list)
    is_last: bool = True
    referrers: dict[str, Digest] | None = None
    resend_after: int | None = None
    resends: list[UUID] = field(default_factory=list)

    def is_cut_to(self, limit: int) -> bool:
        """Drop last entries until the rest has at most ``limit`` bytes, but keep the first; return True if any went."""
        size = 0
        for number, entry in enumerate(self.entries):
            size += len(entry) if entry.isascii() else len(entry.encode())
            if size > limit and number:
                del self.entries[number:], self.states[number:], self.rows[number:]
                return True
        return False


def prepare_page(
    kind: Kind,
    stored: StoredDigest,
    target: Digest,
    *,
    limit: int,
    wanted: Callable[[str], bool] = lambda endpoint: True,
    scope: Scope | None = None,
    resend_after: int | None = 0,
    peer_limit: PeerLimit | None = None,
) -> Page:
    """Return the first ``limit`` changes that ``target`` lacks, by endpoint and tick (SData sync 2.5, 4.4).

    ``stored`` is this node's digest; a change that is recorded after it was read belongs to a later feed. ``wanted``
    restricts the endpoints whose changes are selected.

    A page is cut short before it becomes larger than a page that this node itself accepts.

    ``scope`` restricts the resources to those that a peer may have; a resource that it may not have any more is sent as
    a deletion. Resources that must be resent, although the peer's digest contains them, come first, on pages of their
    own. The page begins after the resent resource with the primary key ``resend_after``; ``None`` means that all were
    sent.

    ``peer_limit`` leaves out versions that are larger than the peer accepts.

    A version is sent only with its own state. If the content of a row differs from the content that its state was
    assigned to, the row was changed since. It is left out, and is sent later with the tick of that change.

    Effects: a row whose version is left out is marked, so that it gets a new tick. A page with deletions assigns ticks
    to the changes of the kinds that refer to this one, after their restore check (network, once in a process).
    """
    page = _select(
        kind,
        stored,
        target,
        limit=limit,
        wanted=wanted,
        scope=scope,
        resend_after=resend_after,
        peer_limit=peer_limit,
    )
    if page.referrers is not None:
        page.referrers = stamp_referring_kinds(kind)
    return page


def prepare_version(kind: Kind, stored: StoredDigest, row: TrackedResource, scope: Scope | None) -> Page | None:
    """Return a page with the present version of one resource, or ``None`` if it cannot or must not be sent."""
    page = Page(cursor=stored.value)
    if row.endpoint_id is not None and row.tick is not None:
        _render(kind, stored, stored.endpoint_url(row.endpoint_id), [row], page, scope, None)
    return page if page.entries else None


def _select(
    kind: Kind,
    stored: StoredDigest,
    target: Digest,
    *,
    limit: int,
    wanted: Callable[[str], bool],
    scope: Scope | None,
    resend_after: int | None,
    peer_limit: PeerLimit | None,
) -> Page:
    page = Page(cursor=target)
    if scope is not None and _begin_with_resends(kind, stored, scope, limit, page, peer_limit, after=resend_after):
        page.is_last = page.resend_after is None and not _is_anything_missing(stored, target, wanted)
        return page
    passed: dict[str, int] = {}
    for missing, is_inhabited in missing_and_inhabited(kind, stored, target, wanted=wanted):
        if not is_inhabited:
            passed[missing.endpoint] = missing.end
            continue
        room = limit - len(page.states)
        tracked = _tracked(kind, stored, missing, room + 1)
        taken, before = tracked[:room], len(page.states)
        _render(kind, stored, missing.endpoint, taken, page, scope, peer_limit)
        page.is_last = len(tracked) == len(taken)
        reached = missing.end if page.is_last else (taken[-1].tick or 0) + 1 if taken else missing.start
        if page.is_cut_to(_most_bytes(peer_limit)):
            page.is_last = False
            reached = page.states[-1].tick + 1 if len(page.states) > before else missing.start
        passed[missing.endpoint] = reached
        if not page.is_last:
            break
    page.cursor = target.raised_all(passed, stamp=0)
    return page


def _begin_with_resends(
    kind: Kind,
    stored: StoredDigest,
    scope: Scope,
    limit: int,
    page: Page,
    peer_limit: PeerLimit | None,
    *,
    after: int | None,
) -> bool:
    resends = [] if after is None else scope.resends(after=after, limit=limit + 1)
    part = resends[:limit]
    if not part:
        return False
    page.resends = [row.uuid for row in part]
    page.resend_after = part[-1].pk if len(resends) > limit else None
    by_endpoint: dict[int, list[TrackedResource]] = {}
    for row in part:
        by_endpoint.setdefault(row.endpoint_id or 0, []).append(row)
    for endpoint, rows in by_endpoint.items():
        _render(kind, stored, stored.endpoint_url(endpoint), rows, page, scope, peer_limit, needs_resend=True)
    return True


def _is_anything_missing(stored: StoredDigest, target: Digest, wanted: Callable[[str], bool]) -> bool:
    return any(wanted(missing.endpoint) for missing in missing_ranges(stored.value, target))


def _tracked(kind: Kind, stored: StoredDigest, missing: TickRange, limit: int) -> list[TrackedResource]:
    endpoint = stored.ensure_endpoint_id(missing.endpoint)
    return _in_range(limit).instances(kind.database, TrackedResource, kind.name, endpoint, missing.start, missing.end)


@lru_cache(maxsize=256)
def _in_range(limit: int) -> PreparedQuery[TrackedResource]:
    return PreparedQuery(
        lambda kind, endpoint, start, end: TrackedResource.objects.filter(
            kind=kind, endpoint_id=endpoint, tick__gte=start, tick__lt=end
        ).order_by("tick")[:limit],
        *(str, int, int, int),
    )


def _render(
    kind: Kind,
    stored: StoredDigest,
    endpoint: str,
    tracked: list[TrackedResource],
    page: Page,
    scope: Scope | None,
    peer_limit: PeerLimit | None,
    *,
    needs_resend: bool = False,
) -> None:
    withdrawn: dict[int, bool] = {}
    if scope is not None:
        withdrawn = scope.sorted_out(tracked)
        tracked = [row for row in tracked if row.pk in withdrawn]
    if peer_limit is not None:
        tracked = [row for row in tracked if not peer_limit.leaves_out(row)]
    contents, problems = _contents(kind, stored, tracked)
    keys = keys_for(kind, contents.values()) if kind.relations else {}
    deferred, deleted_later = _deferred_payloads(kind, tracked)
    for row in tracked:
        url = entry_id(kind, row.local_key, row.uuid)
        payload: str | None
        problem = ""
        if withdrawn.get(row.pk):
            payload = kind.template.render_empty(
                identity(uuid=str(row.uuid), deleted=True, scoped=needs_resend, withdrawn=True)
            )
        elif row.is_deferred:
            payload = deferred.get(row.pk)
        elif row.is_deleted:
            # A peer that may not have the survivor is told of a deletion without it.
            new = row.replaced_by if row.replaced_by and (scope is None or scope.has(row.replaced_by)) else None
            payload = kind.template.render_empty(
                identity(uuid=str(row.uuid), deleted=True, replaced_by=new, scoped=needs_resend)
            )
        else:
            texts, problem = contents.get(row.row_key), problems.get(row.row_key, "")
            payload, problem = _render_row(kind, row, url, texts, keys, problem, scoped=needs_resend)
        if payload is None:
            _stamp_anew(kind, row, problem)
            continue
        if (row.is_deleted or row.pk in deleted_later) and page.referrers is None:
            page.referrers = {}
        state = SyncState(endpoint=endpoint, tick=max(row.tick or 0, 0), stamp=row.stamp, user=row.user)
        title = f"{kind.element_name} {replace_forbidden(row.local_key or str(row.uuid))}"
        entry = render_entry(id=url, title=title, state=state, payload=payload)
        if peer_limit is not None and peer_limit.is_exceeded(row, entry):
            continue
        page.states.append(state)
        page.rows.append(row)
        page.entries.append(entry)


def _most_bytes(peer_limit: PeerLimit | None) -> int:
    ours = conf.max_body_bytes // 2
    return ours if peer_limit is None or peer_limit.max_bytes is None else min(ours, peer_limit.max_bytes)


def _stamp_anew(kind: Kind, row: TrackedResource, problem: str) -> None:
    """Mark a row whose version the feed leaves out, so that it gets a new tick, even if it is changed back meanwhile.

    At the end of a catch-up feed the target's digest contains the left-out version too. A row with a ``problem`` is
    held back until it can be read and rendered.
    """
    if problem:
        logger.error("%s('%s') is held back: %s", kind.endpoint, row.local_key, problem)
    TrackedResource.objects.using(kind.database).filter(
        pk=row.pk, tick=row.tick, endpoint=row.endpoint_id, local_key__isnull=False
    ).update(restamp=True, mark=Coalesce("mark", now()), problem=problem)
    wake_after_commit(kind.name, kind.database)


def _contents(
    kind: Kind, stored: StoredDigest, tracked: list[TrackedResource]
) -> tuple[dict[str, list[Text]], dict[str, str]]:
    """Return the contents of the rows and their problems, by local key.

    A row that was just given its tick has the content that it had then.
    """
    alive = [row.local_key for row in tracked if row.local_key is not None and not (row.is_deleted or row.is_deferred)]
    contents = {key: texts for key in alive if (texts := stored.stamped_texts.get(key)) is not None}
    unread = {key for key in alive if key not in contents}
    read, problems = read_contents(kind, [row for row in tracked if row.local_key in unread], allocate=True)
    return {**contents, **read}, problems


def _render_row(
    kind: Kind,
    row: TrackedResource,
    url: str,
    texts: list[Text] | None,
    keys: Keys,
    problem: str,
    *,
    scoped: bool,
) -> tuple[str | None, str]:
    """Return the payload of a row, ``None`` if it cannot be sent with its state, and the problem, empty for none."""
    if texts is None or row.local_key is None or kind.etag(texts, row.extra) != row.etag:
        return None, problem
    attributes = identity(uuid=str(row.uuid), key=row.local_key, url=url, scoped=scoped)
    try:
        return kind.render(attributes, texts, row.extra, keys), ""
    except Exception as error:
        if ends_page(error):
            raise
        return None, describe(error)


def _deferred_payloads(kind: Kind, tracked: list[TrackedResource]) -> tuple[dict[int, str], set[int]]:
    """Return the payloads of deferred versions, and which of them are deletions, by primary key of their resource."""
    waiting = [row for row in tracked if row.is_deferred]
    if not waiting:
        return {}, set()
    uuids = {row.pk: str(row.uuid) for row in waiting}
    found = DeferredEntry.objects.using(kind.database).filter(resource__in=list(uuids)).select_related("resource")
    states = {row.pk: (row.endpoint_id, row.tick) for row in waiting}
    # Without entries that were received meanwhile: they belong to other states.
    entries = [e for e in found if (e.resource.endpoint_id, e.resource.tick) == states[e.resource_id]]
    payloads = {e.resource_id: _deferred_payload(kind, e, uuids[e.resource_id]) for e in entries}
    return payloads, {e.resource_id for e in entries if e.is_deleted}


def _deferred_payload(kind: Kind, entry: DeferredEntry, uuid: str) -> str:
    if entry.is_deleted or not entry.payload:
        return kind.template.render_empty(identity(uuid=uuid, deleted=entry.is_deleted))
    return entry.payload


def stamp_referring_kinds(kind: Kind) -> dict[str, Digest]:
    """Return this node's digests of the kinds whose rows a deletion of ``kind`` takes along.

    They are read after the page with the deletions, and all committed changes are given their ticks first. So they
    contain every change that was made together with a deletion. For a deletion that this node has only received, they
    contain what the node that made it had (``told_digests``).
    """
    told = told_digests(kind)
    digests: dict[str, Digest] = {}
    for kind_name in sorted(kinds_within_reach(kind) - {kind.name}):
        other = registry.of_kind(kind_name)
        if other is None:
            continue
        if other.is_source:
            digests[kind_name] = check_and_assign_ticks(other).value.merge(told.get(kind_name, Digest()), stamp=0)
        else:  # an empty digest tells the target that this node does not send the kind
            digests[kind_name] = Digest(origin=other.endpoint)
    return digests


def entry_id(kind: Kind, key: str | None, uuid: UUID) -> str:
    """Return the id of an entry: the URL of the row, or the uuid as a URN if there is no row."""
    return kind.resource_url(key) if key is not None else uuid.urn


def is_own(kind: Kind) -> Callable[[str], bool]:
    """Return a function for ``wanted`` that restricts a page to the changes made at this node."""
    return lambda endpoint: same_endpoint(endpoint, kind.endpoint)
