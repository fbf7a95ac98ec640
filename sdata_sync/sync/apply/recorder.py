"""Keep the sync states, the digest and the newly assigned ticks of this node while a feed is applied."""

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
from ..log.tracked import note_first_state, tracked_rows
from ..stamp.restore import Behind, take_higher_tick
from ..stamp.stamper import number, number_all_under_lock

if TYPE_CHECKING:
    from ...core.digest import Digest
    from ...kind import Kind
    from ...models import TrackedResource
    from ..log.digests import StoredDigest


@dataclass(kw_only=True, eq=False)
class _Restored:
    """Hold what a restored node must do when its lost changes are back; it assigns no tick before that."""

    behind: Behind
    #: Uuids of resources edited since the restore, which have no tick yet or one that may be assigned twice.
    edited: set[UUID]
    #: Uuids of resources that get a new tick afterwards.
    anew: list[UUID]


class Recorder:
    """Record changes of this node, in the transaction that holds the digest's lock.

    ``digest`` is the digest of this node; it advances with each recorded change. ``target`` is the digest before the
    feed. Decisions use ``target``, so that changes recorded while the feed is applied do not influence them. If this
    node was restored (``behind``), its edits since then do: the feed returns changes that were made without them.
    """

    def __init__(self, resource: Kind, stored: StoredDigest, source: Digest, *, behind: Behind | None) -> None:
        self.resource = resource
        self.source = source
        self.digest = self.target = stored.value
        self.now = now()
        #: True if a change of this node was recorded that must be sent to the peers.
        self.has_recorded = False
        self._stored = stored
        self._restored = None if behind is None else _Restored(behind=behind, edited=set(), anew=[])
        self._highest: dict[str, SyncState] = {}

    def number_edits(self, tracked: Sequence[TrackedResource], instances: Mapping[str, models.Model]) -> None:
        """Assign ticks to the edits of ``tracked`` that were committed while this transaction waited for the rows.

        They are ordinary local edits, and the decision must take them into account. If this node was restored, they are
        only remembered, because it assigns no ticks yet.
        """
        marked = [row for row in tracked if row.mark is not None and not row.problem]
        if self._restored is not None:
            edited = [row for row in marked if self._is_edited(row, instances)]
            doubtful = [row for row in tracked if self._has_doubtful_tick(row, self._restored.behind)]
            self._restored.edited.update(row.uuid for row in (*edited, *doubtful))
        elif marked:
            self._number(marked)

    def _number(self, marked: Sequence[TrackedResource]) -> None:
        self._stored.value = self.digest  # with the ticks that recorded outcomes have got
        number(self.resource, self._stored, marked)
        self.digest = self._stored.value

    def numbered(self, key: str) -> TrackedResource:
        """Return the tracked resource of the row ``key``; track it and assign its tick if that was not done before."""
        rows = tracked_rows(self.resource).filter(local_key=key)
        row = rows.first()
        if row is None:
            link(self.resource, key, None)
            row = rows.get()
        if row.mark is not None and not row.problem and self._restored is None:
            self._number([row])
        return row

    def _has_doubtful_tick(self, tracked: TrackedResource, behind: Behind) -> bool:
        own = self._stored.endpoint_id(self.resource.endpoint)
        return tracked.endpoint_id == own and tracked.tick is not None and tracked.tick in behind

    def _is_edited(self, tracked: TrackedResource, instances: Mapping[str, models.Model]) -> bool:
        if tracked.restamp:
            return True
        instance = instances.get(tracked.local_key or "")
        if instance is None:
            return not tracked.is_deleted
        contents = LocalVersion(self.resource, tracked, instance, allocate=False).contents
        return contents is None or self.resource.etag(contents, tracked.extra) != tracked.etag

    def has_lost_edit(self, uuid: UUID) -> bool:
        """Return True if the resource was edited here since this node was restored."""
        return self._restored is not None and uuid in self._restored.edited

    def held_state(self, tracked: TrackedResource) -> SyncState | None:
        """Return the sync state of this node's version, or ``None`` if it has none yet."""
        if tracked.mark is not None and (tracked.problem or self.has_lost_edit(tracked.uuid)):
            # An edit without a tick, because it is held back or this node was restored, is the local version too.
            own, stamp = self.resource.endpoint, stamp_after(tracked.mark, tracked.stamp)
            return SyncState(endpoint=own, tick=self._free_tick(), stamp=stamp, user=tracked.mark_user)
        if tracked.tick is None or tracked.endpoint_id is None:
            return None
        url = self._stored.endpoint_url(tracked.endpoint_id)
        return SyncState(endpoint=url, tick=tracked.tick, stamp=tracked.stamp, user=tracked.user)

    def set_state(self, tracked: TrackedResource, state: SyncState) -> None:
        """Set the sync state of a version on ``tracked``; the caller stores it."""
        note_first_state(tracked)
        tracked.endpoint_id = self._stored.endpoint_id(state.endpoint)
        tracked.tick, tracked.stamp, tracked.user = state.tick, state.stamp, state.user[:150]
        tracked.awaited_endpoint_id, tracked.keeps_content = None, False
        note_first_state(tracked)

    def record(self, uuid: UUID, winner: SyncState, *both: SyncState) -> SyncState:
        """Record the outcome of a decision as a change of this node, and return its sync state.

        While this node gets its lost changes back, return the state of the ``winner``: the outcome gets its tick later.
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
        # Above the highest tick that the source has from this node, in case this node was restored from a backup.
        own = self.resource.endpoint
        return max(self.digest.tick(own), self.source.tick(own))

    def see(self, state: SyncState) -> None:
        """Remember that the version with ``state`` was processed, so that ``finish`` advances the digest."""
        self._highest[state.endpoint.lower()] = state

    def rejoin(self) -> None:
        """Continue above the highest tick that the source has from this node; reassign ticks that were used twice."""
        self._mark_anew()
        self._stored.value = self.digest
        take_higher_tick(self.resource, self._stored, self.source, f"the feed of {self.source.origin or 'a peer'}")
        number_all_under_lock(self.resource, self._stored)
        self.digest = self._stored.value

    def finish(self, *, merge: bool) -> Digest:
        """Advance the digest (SData sync 5.5), store it and return it.

        ``merge`` is true after the last page of a catch-up feed: then the digest adopts the source's digest.
        """
        self._mark_anew()
        digest = self.digest
        for state in self._highest.values():
            self._stored.hear(state.endpoint, state.tick)
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
