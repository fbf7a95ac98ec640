"""Record the sync states of resources, the ticks of this node and its digest while a feed is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import models

from ...core.state import SyncState, same_endpoint
from ...core.text import fold
from ..bounds import stamp_after_believed
from ..content.contents import LocalVersion
from ..db.clock import now
from ..identity.link import link
from ..log.tracked import set_first_state, tracked_rows
from ..stamp.restore_gap import RestoreGap, take_higher_tick
from ..stamp.stamper import assign_ticks_under_lock, stamp_rows

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind
    from ...models import TrackedResource
    from ..log.digests import StoredDigest


@dataclass(kw_only=True, eq=False)
class _Restored:
    """Hold what a restored node must do when it has its lost changes back; it assigns no tick until then."""

    gap: RestoreGap
    #: The uuids of edits since the restore, which have no tick or a tick that may have been used before.
    edited: set[UUID]
    #: The uuids of the resources that get a tick afterwards.
    anew: list[UUID]


class Recorder:
    """Record states and ticks, in the transaction that holds the digest's lock.

    ``digest`` is the digest of this node, which advances with each recorded change. ``target`` is the digest from
    before the feed. Decisions use ``target``, so that changes recorded during the feed do not affect them. During a
    restore ``gap`` they do, because this node gets its own changes back. ``is_trusted`` tells whether the feed speaks
    for its origin (``Speaker.is_trusted``).
    """

    def __init__(
        self, kind: Kind, stored: StoredDigest, source: Digest, *, gap: RestoreGap | None, is_trusted: bool
    ) -> None:
        self.kind = kind
        self._is_trusted = is_trusted
        self.source = source
        self.digest = self.target = stored.value
        self.now = now()
        #: True if a change of this node was recorded that must be delivered to its peers.
        self.has_recorded = False
        self._stored = stored
        self._restored = None if gap is None else _Restored(gap=gap, edited=set(), anew=[])
        self._highest: dict[str, SyncState] = {}

    def stamp_edits(self, tracked: Sequence[TrackedResource], instances: Mapping[str, models.Model]) -> None:
        """Assign ticks to edits of ``tracked`` that were committed while this transaction waited for the row locks.

        The decisions must see these local edits.
        """
        marked = [row for row in tracked if row.mark is not None and not row.problem]
        if self._restored is not None:
            edited = [row for row in marked if self._is_edited(row, instances)]
            doubtful = [row for row in tracked if self._has_doubtful_tick(row, self._restored.gap)]
            self._restored.edited.update(row.uuid for row in (*edited, *doubtful))
        elif marked:
            self._stamp(marked)

    def _stamp(self, marked: Sequence[TrackedResource]) -> None:
        self._stored.value = self.digest  # with the ticks of the outcomes that were recorded
        stamp_rows(self.kind, self._stored, marked)
        self.digest = self._stored.value

    def ensure_stamped(self, key: str) -> TrackedResource:
        """Return the TrackedResource of the row ``key``; track the row and assign a tick if it has none."""
        rows = tracked_rows(self.kind).filter(local_key=key)
        row = rows.first()
        if row is None:
            link(self.kind, key, None)
            row = rows.get()
        if row.mark is not None and not row.problem and self._restored is None:
            self._stamp([row])
        return row

    def _has_doubtful_tick(self, tracked: TrackedResource, gap: RestoreGap) -> bool:
        own = self._stored.ensure_endpoint_id(self.kind.endpoint)
        return tracked.endpoint_id == own and tracked.tick is not None and tracked.tick in gap

    def _is_edited(self, tracked: TrackedResource, instances: Mapping[str, models.Model]) -> bool:
        if tracked.restamp:
            return True
        instance = instances.get(tracked.row_key)
        if instance is None:
            return not tracked.is_deleted
        contents = LocalVersion(self.kind, tracked, instance, allocate=False).contents
        return contents is None or self.kind.etag(contents, tracked.extra) != tracked.etag

    def has_lost_edit(self, uuid: UUID) -> bool:
        """Return True if the resource was edited at this node since the restore."""
        return self._restored is not None and uuid in self._restored.edited

    def local_state(self, tracked: TrackedResource) -> SyncState | None:
        """Return the sync state of the version at this node, or ``None`` if there is none."""
        if tracked.mark is not None and (tracked.problem or self.has_lost_edit(tracked.uuid)):
            # An edit without a tick, held back or made since a restore, is the local version all the same.
            own, stamp = self.kind.endpoint, stamp_after_believed(tracked.mark, tracked.stamp)
            return SyncState(endpoint=own, tick=self._free_tick(), stamp=stamp, user=tracked.mark_user)
        if tracked.tick is None or tracked.endpoint_id is None:
            return None
        url = self._stored.endpoint_url(tracked.endpoint_id)
        return SyncState(endpoint=url, tick=tracked.tick, stamp=tracked.stamp, user=tracked.user)

    def set_state(self, tracked: TrackedResource, state: SyncState) -> None:
        """Set the sync state of a version on ``tracked``; the caller stores it."""
        set_first_state(tracked)
        tracked.endpoint_id = self._stored.ensure_endpoint_id(state.endpoint)
        tracked.tick, tracked.stamp, tracked.user = state.tick, state.stamp, state.user[:150]
        tracked.awaited_endpoint_id, tracked.keeps_content = None, False
        set_first_state(tracked)

    def record(self, uuid: UUID, winner: SyncState, *both: SyncState) -> SyncState:
        """Record the outcome of a decision as a change of this node, and return its sync state.

        During a restore gap return the state of the ``winner``: the outcome gets its tick when the gap has ended.
        """
        if self._restored is not None:
            self._restored.anew.append(uuid)
            return winner
        own = self.kind.endpoint
        stamp = stamp_after_believed(self.now, *(state.stamp for state in both))
        state = SyncState(endpoint=own, tick=self._free_tick(), stamp=stamp, user=winner.user)
        self.digest = self.digest.advance(state, stamp=self.now)
        self.has_recorded = True
        return state

    def _free_tick(self) -> int:
        # Above every tick that the source has seen of this node, which may have been restored from a backup.
        own = self.kind.endpoint
        return max(self.digest.tick(own), self.source.tick(own))

    def advance_past(self, state: SyncState) -> None:
        """Remember that the version with ``state`` was processed, so that ``finish`` advances the digest past it."""
        self._highest[fold(state.endpoint)] = state

    def rejoin(self) -> None:
        """Continue above the highest tick that the source has from this node; reassign ticks that were used twice."""
        self._mark_anew()
        self._stored.value = self.digest
        take_higher_tick(self.kind, self._stored, self.source, f"the feed of {self.source.origin or 'a peer'}")
        assign_ticks_under_lock(self.kind, self._stored)
        self.digest = self._stored.value

    def finish(self, *, merge: bool, priorities: Digest) -> Digest:
        """Advance the digest (SData sync 5.5), store it and return it; ``merge`` after the last catch-up page.

        Conflict priorities are taken over from the digest ``priorities``.
        """
        self._mark_anew()
        digest = self.digest
        for state in self._highest.values():
            by_itself = self._is_trusted and same_endpoint(state.endpoint, self.source.origin)
            self._stored.receive(state.endpoint, state.tick, by_itself=by_itself)
            digest = digest.advance(state, stamp=self.now)
        if merge and self._is_trusted and self.source.entry(self.source.origin) is not None:
            origin = self.source.origin  # it has delivered all its changes that this node lacked
            self._stored.deliver(origin, self.source.tick(origin))
        if merge and same_endpoint(self.source.part_of, self.kind.endpoint):
            digest = digest.merge(self.source.of_origin_alone(), stamp=self.now)
        elif merge:
            digest = digest.merge(self.source, stamp=self.now)
        self._stored.save(digest.with_priorities(priorities))
        return self._stored.value

    def _mark_anew(self) -> None:
        """Mark the recorded outcomes, so that they get ticks when the restore gap has ended."""
        if self._restored is not None and self._restored.anew:
            anew = tracked_rows(self.kind).filter(uuid__in=self._restored.anew)
            anew.update(mark=self.now, is_intent=False, restamp=True)
            self._restored.anew = []
