"""Apply the entries of a feed: read the local state, let ``core`` decide, and write the outcome."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ...core.decision import Relation, Rule, decide
from ...core.state import SyncState, is_later, same_endpoint
from ...exceptions import OutOfPart, PayloadError
from ..bounds import believed_stamp
from ..content.conditions import Condition
from ..content.contents import LocalVersion
from ..content.references import keys_of
from ..db.isolation import row_guard
from ..identity.link import end_waiting
from ..log.events import send_signals
from ..scope import row_scope
from .anomalies import Anomalies
from .batch import Batch, Plan, Version
from .conflicts import ConflictResolution
from .duplicates import Merger
from .limits import DeletionBrake
from .recorder import Recorder
from .results import UNCHANGED, lost_result, refused_result, result_of
from .store import columns_before, store

if TYPE_CHECKING:
    from ...atom.entry import Entry, Result
    from ...core.digest import Digest
    from ...kind import Kind
    from ...models import TrackedResource
    from ..bounds import Bounds
    from ..log.digests import StoredDigest
    from ..scope import RowScope
    from ..stamp.restore_gap import RestoreGap

logger = logging.getLogger(__name__)


class Applier:
    """Apply the entries of one feed, in the transaction that holds the digest's lock.

    ``bounds`` decide which claims of the feed this node believes. ``referrers`` are the digests of other kinds in the
    feed, for its deletions. ``results`` are the results of the entries, in their order.
    """

    def __init__(
        self,
        kind: Kind,
        stored: StoredDigest,
        *,
        gap: RestoreGap | None,
        referrers: Mapping[str, Digest] | None = None,
        bounds: Bounds,
    ) -> None:
        self.kind = kind
        self._using = kind.database
        self._bounds = bounds
        self._stored = stored
        self._referrers = referrers
        self.results: list[Result] = []
        self.has_written = False
        #: The number of entries that were concurrent with the local version.
        self.conflicts = 0
        self._recorder = Recorder(kind, stored, bounds.source, gap=gap, is_trusted=bounds.speaker.is_trusted)
        self._brake = DeletionBrake(kind, bounds.speaker.origin)
        self._anomalies = Anomalies(kind, stored, self._recorder.now)

    @cached_property
    def _condition(self) -> Condition:
        return Condition.record(self.kind, self._recorder.source, self._referrers)

    @property
    def has_recorded(self) -> bool:
        """Return True if a change of this node was recorded that must be delivered to its peers."""
        return self._recorder.has_recorded

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply ``entries``; each of them is of a different resource."""
        batch = Batch(self.kind, entries, lambda: self._condition, self._recorder.source, self._part)
        self._recorder.stamp_edits(list(batch.tracked.values()), batch.instances)
        batch.look_up_references(entries)
        for entry in entries:
            refused = self._refused(entry, batch)
            if refused is not None:
                batch.results[entry.uuid] = refused
                continue
            batch.results[entry.uuid] = self._apply_entry(entry, batch)
            self._recorder.advance_past(entry.state)
            self._anomalies.check_stamp(entry.state)
        self._brake.check(batch.versions)
        store(batch, self._recorder.now)
        merger = Merger(self._recorder, batch)
        merger.merge_all()
        self.results += batch.results.values()
        self.conflicts += len(batch.conflicts) + merger.conflicts
        self.has_written = self.has_written or bool(batch.versions)
        send_signals(self.kind, batch.conflicts, [(v.tracked, v.error is not None) for v in batch.versions])

    def rejoin(self) -> None:
        """Continue above the highest tick that the source has from this node; reassign ticks that were used twice."""
        self._recorder.rejoin()

    def finish(self, *, merge: bool) -> Digest:
        """Advance the digest (SData sync 5.5), store it and return it; ``merge`` after the last catch-up page."""
        digest = self._recorder.finish(merge=merge, priorities=self._bounds.priorities)
        self._anomalies.store()
        self._brake.store()
        self._bounds.report()
        if merge and end_waiting(self.kind, self._recorder.source.origin):
            self._recorder.has_recorded = True
        return digest

    def _refused(self, entry: Entry, batch: Batch) -> Result | None:
        """Return the result of an entry that must not be applied, or ``None`` if the entry may be applied."""
        tracked = batch.tracked.get(entry.uuid)
        if not self._bounds.may_bring(entry.state):
            reason = f"Only an enabled peer, or a login with carry_feeds, may bring changes of {entry.state.endpoint}."
            return refused_result(self.kind, entry, tracked, 403, "NotTrusted", reason)
        reason = self._bounds.refuse(entry.state)
        if reason:
            return refused_result(self.kind, entry, tracked, 409, "ClaimLeftOut", reason)
        if entry.is_withdrawn and not self._is_filtered_by_source:
            self._bounds.add_claim(f"that {entry.uuid} does not belong here")
            reason = "Only the enabled peer that filters this node's replica may withdraw a resource from it."
            return refused_result(self.kind, entry, tracked, 403, "NotTrusted", reason)
        return None

    @cached_property
    def _is_filtered_by_source(self) -> bool:
        """Return True if the source is the enabled peer that filters the kind for this node."""
        return self._bounds.speaker.filters_us(self._recorder.source)

    def _apply_entry(self, entry: Entry, batch: Batch) -> Result:
        """Decide one entry; an exception that the entry causes defers this entry alone."""
        try:
            with row_guard(self._using, savepoint=False):
                return self._decide(entry, batch)
        except PayloadError as error:
            version = batch.version(entry)
            version.defer(error)
            version.row = None
            return self._accept(version, entry.state, batch)

    def _decide(self, entry: Entry, batch: Batch) -> Result:
        tracked = batch.tracked.get(entry.uuid)
        local_state = None if tracked is None else self._recorder.local_state(tracked)
        relation = self._relation(entry, local_state)
        if relation is Relation.KNOWN:
            if local_state is not None:
                self._anomalies.check_tick(entry, local_state)
            shown = tracked if batch.is_inside(tracked) else None
            return result_of(self.kind, entry, shown, message=UNCHANGED)
        if batch.part is not None:
            self._check_part(entry, tracked, batch)
        is_alias = tracked is not None and tracked.replaced_by is not None and not entry.is_deleted
        if relation is not Relation.CONCURRENT or is_alias:
            return self._accept(batch.version(entry), entry.state, batch)
        assert local_state is not None
        assert tracked is not None
        local = LocalVersion(self.kind, tracked, batch.instance_of(tracked), allocate=True)
        return self._resolve_conflict(batch.version(entry), local_state, local, batch)

    @cached_property
    def _part(self) -> RowScope | None:
        """Return the bounds of what the sender may write; ``None`` for all rows, and for the node that filters us."""
        return None if self._is_filtered_by_source else row_scope(self.kind, self._bounds.speaker.peer)

    def _check_part(self, entry: Entry, tracked: TrackedResource | None, batch: Batch) -> None:
        """Check that an entry concerns only rows in the part of its sender.

        Raises:
            OutOfPart: its row, or the row of a uuid that it is an alias of, is not in the part.
        """
        if not batch.is_inside(tracked) and not self.kind.declared.may_move:
            raise OutOfPart
        known = (None if tracked is None else tracked.replaced_by, entry.replaced_by)
        others = keys_of(self.kind, [uuid for uuid in known if uuid is not None])
        for key in others.values():
            batch.check_within_part(key)

    def _relation(self, entry: Entry, local_state: SyncState | None) -> Relation:
        target = self._recorder.target
        if self._recorder.has_lost_edit(entry.uuid) and not target.contains(entry.state):
            # At any endpoint: a change that this node lost in a restore was made without knowledge of the edit.
            return Relation.CONCURRENT
        relation = decide(entry.state, local_state, self._recorder.source, target)
        if entry.is_scoped and relation is Relation.KNOWN and self._is_matter_of_scope(local_state):
            return Relation.NEWER
        if relation is Relation.KNOWN and self._is_falsely_known(entry.state, local_state):
            if local_state is not None:
                return Relation.CONCURRENT
            self._anomalies.add_false_claim(entry.state)
            return Relation.UNKNOWN
        return relation

    def _is_falsely_known(self, state: SyncState, local_state: SyncState | None) -> bool:
        """Return True if an endpoint delivers a change for the first time that this node does not have already.

        This node's digest contains the change all the same: another node has relayed it, and another version has
        replaced it since, or another node has claimed a tick that the endpoint had not reached. It was claimed if this
        node has no version at all, if its digest is ahead of the endpoint's own, or if the change was made after the
        digest had contained it. A change that is later than the present version cannot have been replaced by it.
        """
        endpoint, source, target = state.endpoint, self._recorder.source, self._recorder.target
        if not (self._bounds.speaker.is_trusted and same_endpoint(endpoint, source.origin)):
            return False
        if state.tick < max(self._stored.received_tick(endpoint), self._stored.purge_floor(endpoint)):
            return False  # a page that is repeated, or a tombstone that was purged
        if local_state is None:
            return True
        if same_endpoint(local_state.endpoint, endpoint):
            # By its own digest the endpoint has not recorded the local version yet: another node has made it up.
            return local_state.tick > state.tick and local_state.tick >= source.tick(endpoint)
        entry = target.entry(endpoint)
        contained_since = None if entry is None else entry.stamp
        return (
            target.tick(endpoint) > source.tick(endpoint)
            or (contained_since is not None and state.stamp > contained_since)
            or is_later(believed_stamp(state, self._recorder.now), believed_stamp(local_state, self._recorder.now))
        )

    def _is_matter_of_scope(self, local_state: SyncState | None) -> bool:
        """Return True if the source filters the kind for this node and has seen this node's present version."""
        return self._is_filtered_by_source and (local_state is None or self._recorder.source.contains(local_state))

    def _resolve_conflict(self, version: Version, local_state: SyncState, local: LocalVersion, batch: Batch) -> Result:
        entry, tracked = version.entry, version.tracked
        # A change that the digest contained falsely is decided by the stamps, as between endpoints of equal priority.
        is_claimed = self._recorder.target.contains(entry.state)
        outcome = ConflictResolution(
            self._recorder, batch, version, local_state=local_state, local=local, by_priority=not is_claimed
        ).decide()
        if is_claimed and outcome.source_wins and outcome.by is not Rule.SAME_CONTENT:
            self._anomalies.add_false_claim(entry.state)
        state = entry.state if outcome.source_wins else local_state
        if outcome.record:
            state = self._recorder.record(entry.uuid, state, entry.state, local_state)
        if outcome.source_wins:
            return self._accept(version, state, batch)
        if state is not local_state:
            self._recorder.set_state(tracked, state)
            batch.touched[tracked.uuid] = tracked
        if tracked.problem:
            # A held-back edit has won. It gets a tick even if it is undone before that: undoing it is a change too.
            tracked.restamp = True
            batch.touched[tracked.uuid] = tracked
        if outcome.by is Rule.SAME_CONTENT:
            return result_of(self.kind, entry, tracked, message=UNCHANGED)
        return lost_result(self.kind, entry, tracked, outcome)

    def _accept(self, version: Version, state: SyncState, batch: Batch) -> Result:
        entry, tracked = version.entry, version.tracked
        if batch.part is not None and version.before is None:
            version.before = columns_before(tracked)
        self._recorder.set_state(tracked, state)
        if version.row is not None:
            version.row.state = state
        batch.versions.append(version)
        if not version.is_new:
            batch.touched[tracked.uuid] = tracked
        return result_of(self.kind, entry, tracked, message="OK", method=_method(version, tracked))


def _method(version: Version, tracked: TrackedResource) -> str:
    if version.entry.is_deleted:
        return "DELETE"
    has_row = tracked.local_key is not None or version.plan in (Plan.MERGE, Plan.RESURRECT)
    return "PUT" if has_row else "POST"
