"""Recording: the states that this node holds, the ticks that it gives, and its digest, while a feed is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import models

from ...core.state import SyncState, same_endpoint, stamp_after
from ..content.contents import LocalVersion
from ..db.clock import now
from ..identity.link import link
from ..log.tracked import set_first_state, tracked_rows
from ..stamp.restore import RestoreGap, take_higher_tick
from ..stamp.stamper import assign_ticks_under_lock, stamp_rows

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind
    from ...models import TrackedResource
    from ..log.digests import StoredDigest


@dataclass(kw_only=True, eq=False)
class _Restored:
    """What a node does while it gets back what it has lost: nothing is numbered before that has ended."""

    gap: RestoreGap
    #: Edits since the restore, which have no number yet, or one that may have been used before.
    edited: set[UUID]
    #: What is to get a number of its own afterwards.
    anew: list[UUID]


class Recorder:
    """What this node holds and records, in the transaction that holds the digest's lock.

    ``digest`` is this node's, moving on with what is recorded. ``target`` is what it was before: decisions are made
    against that, and what is recorded while a feed is applied makes no difference to them, unless this node was
    restored, ``gap``, and gets its own changes back.
    """

    def __init__(self, resource: Kind, stored: StoredDigest, source: Digest, *, gap: RestoreGap | None) -> None:
        self.resource = resource
        self.source = source
        self.digest = self.target = stored.value
        self.now = now()
        #: Whether others have something to learn from here.
        self.has_recorded = False
        self._stored = stored
        self._restored = None if gap is None else _Restored(gap=gap, edited=set(), anew=[])
        self._highest: dict[str, SyncState] = {}

    def stamp_edits(self, tracked: Sequence[TrackedResource], instances: Mapping[str, models.Model]) -> None:
        """Number what of ``tracked`` was edited here and committed while we waited for its rows.

        A local edit like any other, which the decision must see.
        """
        marked = [row for row in tracked if row.mark is not None and not row.problem]
        if self._restored is not None:
            edited = [row for row in marked if self._is_edited(row, instances)]
            doubtful = [row for row in tracked if self._has_doubtful_tick(row, self._restored.gap)]
            self._restored.edited.update(row.uuid for row in (*edited, *doubtful))
        elif marked:
            self._stamp(marked)

    def _stamp(self, marked: Sequence[TrackedResource]) -> None:
        self._stored.value = self.digest  # with the ticks that outcomes were recorded under
        stamp_rows(self.resource, self._stored, marked)
        self.digest = self._stored.value

    def stamped_row(self, key: str) -> TrackedResource:
        """Return the resource of the row ``key``, tracked and numbered: a version like any other."""
        rows = tracked_rows(self.resource).filter(local_key=key)
        row = rows.first()
        if row is None:
            link(self.resource, key, None)
            row = rows.get()
        if row.mark is not None and not row.problem and self._restored is None:
            self._stamp([row])
        return row

    def _has_doubtful_tick(self, tracked: TrackedResource, gap: RestoreGap) -> bool:
        own = self._stored.endpoint_id(self.resource.endpoint)
        return tracked.endpoint_id == own and tracked.tick is not None and tracked.tick in gap

    def _is_edited(self, tracked: TrackedResource, instances: Mapping[str, models.Model]) -> bool:
        if tracked.restamp:
            return True
        instance = instances.get(tracked.local_key or "")
        if instance is None:
            return not tracked.is_deleted
        contents = LocalVersion(self.resource, tracked, instance, allocate=False).contents
        return contents is None or self.resource.etag(contents, tracked.extra) != tracked.etag

    def has_lost_edit(self, uuid: UUID) -> bool:
        """Tell whether the resource was edited here since this node was restored."""
        return self._restored is not None and uuid in self._restored.edited

    def local_state(self, tracked: TrackedResource) -> SyncState | None:
        """Return the sync state of the version that this node holds, ``None`` if it has none yet."""
        if tracked.mark is not None and (tracked.problem or self.has_lost_edit(tracked.uuid)):
            # An edit that is not numbered, because it is held back or we were restored: the local version all the same.
            own, stamp = self.resource.endpoint, stamp_after(tracked.mark, tracked.stamp)
            return SyncState(endpoint=own, tick=self._free_tick(), stamp=stamp, user=tracked.mark_user)
        if tracked.tick is None or tracked.endpoint_id is None:
            return None
        url = self._stored.endpoint_url(tracked.endpoint_id)
        return SyncState(endpoint=url, tick=tracked.tick, stamp=tracked.stamp, user=tracked.user)

    def set_state(self, tracked: TrackedResource, state: SyncState) -> None:
        """Give ``tracked`` the state of a version; it is not stored here."""
        set_first_state(tracked)
        tracked.endpoint_id = self._stored.endpoint_id(state.endpoint)
        tracked.tick, tracked.stamp, tracked.user = state.tick, state.stamp, state.user[:150]
        tracked.awaited_endpoint_id, tracked.keeps_content = None, False
        set_first_state(tracked)

    def record(self, uuid: UUID, winner: SyncState, *both: SyncState) -> SyncState:
        """Record the outcome of a decision as a change of this node, and return its sync state.

        While this node is restored that of the ``winner``: the outcome is numbered when that has ended.
        """
        if self._restored is not None:
            self._restored.anew.append(uuid)
            return winner
        own = self.resource.endpoint
        stamp = stamp_after(self.now, *(state.stamp for state in both))
        state = SyncState(endpoint=own, tick=self._free_tick(), stamp=stamp, user=winner.user)
        self.digest = self.digest.advance(state, stamp=self.now)
        self.has_recorded = True
        return state

    def _free_tick(self) -> int:
        # Beyond whatever anybody has seen of us, should we have been restored from a backup.
        own = self.resource.endpoint
        return max(self.digest.tick(own), self.source.tick(own))

    def advance_past(self, state: SyncState) -> None:
        """Note that the version of ``state`` has been dealt with."""
        self._highest[state.endpoint.lower()] = state

    def rejoin(self) -> None:
        """Continue above the highest tick that the source has from this node; reassign ticks that were used twice."""
        self._mark_anew()
        self._stored.value = self.digest
        take_higher_tick(self.resource, self._stored, self.source, f"the feed of {self.source.origin or 'a peer'}")
        assign_ticks_under_lock(self.resource, self._stored)
        self.digest = self._stored.value

    def finish(self, *, merge: bool) -> Digest:
        """Move the digest on (SData sync 5.5), store it and return it; ``merge`` after the last catch-up page."""
        self._mark_anew()
        digest = self.digest
        for state in self._highest.values():
            self._stored.receive(state.endpoint, state.tick)
            digest = digest.advance(state, stamp=self.now)
        if merge and same_endpoint(self.source.part_of, self.resource.endpoint):
            digest = digest.merge(self.source.of_origin_alone(), stamp=self.now)
        elif merge:
            digest = digest.merge(self.source, stamp=self.now)
        self._stored.save(digest.with_priorities(self.source))
        return self._stored.value

    def _mark_anew(self) -> None:
        """Mark the recorded outcomes, so that they get ticks when the restore gap has ended."""
        if self._restored is not None and self._restored.anew:
            anew = tracked_rows(self.resource).filter(uuid__in=self._restored.anew)
            anew.update(mark=self.now, is_intent=False, restamp=True)
            self._restored.anew = []
