"""Applying: what is done with each entry of a feed. ``core`` decides; this reads, calls and writes."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, models, transaction
from django.db.models import QuerySet
from django.utils import timezone

from ..atom.dates import format_stamp
from ..atom.entry import Entry, Result
from ..conf import conf
from ..core.decision import Relation, Resolution, Rule, decide, resolve
from ..core.digest import Digest
from ..core.state import SyncState, same_endpoint, stamp_after
from ..exceptions import PayloadError
from ..models import ConflictRecord, Endpoint, TrackedResource
from ..relations import Reading
from ..resources import SyncResource
from .announcing import announce
from .changes import RowChange, keep_waiting, prepare_row, set_values
from .clock import now
from .deferring import defer, forget
from .digests import StoredDigest
from .disputes import LocalVersion, ask_application, record_of
from .linking import KEPT, end_waiting, link, rename, survivor_of, tracked_rows
from .log import ANEW, create_tracked, new_tracked, update_tracked
from .numbering import is_young_intent, number, number_all_under_lock
from .prepared import PreparedQuery
from .rejoining import Behind, take_higher_tick
from .relations.contents import merged, waiting_of
from .relations.placing import Known, targets_of
from .relations.settling import store_pending
from .results import UNCHANGED, created_result, deferred_result, lost_result, result_of
from .rows import read_instances
from .uniting import Union, keep_alias, revive
from .writing import write_rows

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class _Version:
    """One received version on its way into the database."""

    entry: Entry
    tracked: TrackedResource
    is_new: bool
    row: RowChange | None = None
    reading: Reading = field(default_factory=lambda: Reading({}))
    error: PayloadError | None = None
    is_deleted: bool = False
    #: Whether it and what stood here were made without knowledge of each other.
    is_concurrent: bool = False
    #: The key of the row that is the same thing as this one, under another uuid.
    same_as: str = ""
    #: The resource, deleted meanwhile, that this one is an alias of.
    revives: TrackedResource | None = None
    #: Whether the row was linked to it, and is to keep its own content.
    keeps_row: bool = False
    #: The key of the row whose uuid it replaces by another.
    renames: str = ""


@dataclass(kw_only=True, eq=False)
class _Batch:
    """What a batch of entries comes to."""

    tracked: dict[UUID, TrackedResource]
    instances: dict[str, models.Model]
    first_result: int
    versions: list[_Version] = field(default_factory=list)
    touched: dict[UUID, TrackedResource] = field(default_factory=dict)
    readings: dict[UUID, Reading | PayloadError] = field(default_factory=dict)
    known: Known = field(default_factory=Known)


@lru_cache(maxsize=512)
def _by_uuid(count: int, *, lock: bool) -> PreparedQuery[TrackedResource]:
    """Return the query for ``count`` tracked resources, locked in one order by everybody who locks several."""

    def build(kind: str, *uuids: UUID) -> QuerySet[TrackedResource]:
        rows = TrackedResource.objects.filter(kind=kind, uuid__in=uuids).order_by("pk")
        return rows.select_for_update() if lock else rows

    return PreparedQuery(build, str, *[TrackedResource._meta.get_field("uuid")] * count)


@lru_cache(maxsize=512)
def _by_key(count: int) -> PreparedQuery[TrackedResource]:
    """Return the query for what is tracked under ``count`` local keys: primary key, local key, uuid."""
    return PreparedQuery(
        lambda kind, *keys: (
            TrackedResource.objects.filter(kind=kind, local_key__in=keys)
            .order_by()
            .values_list("pk", "local_key", "uuid")
        ),
        *[str] * (count + 1),
    )


class Applier:
    """Applies the entries of one feed, in the transaction that holds the digest's lock.

    ``digest`` is this node's, moving on with what is recorded here; ``results`` say what became of the entries.
    """

    def __init__(self, resource: SyncResource, stored: StoredDigest, source: Digest, *, behind: Behind | None) -> None:
        self.resource = resource
        self.stored = stored
        self.source = source
        self.digest = stored.value
        #: Decisions are made against what was contained before the feed. What is recorded while it is applied
        #: makes no difference to them, unless this node was restored and gets its own changes back.
        self._target = stored.value
        self.results: list[Result] = []
        self.has_written = False
        self.has_recorded = False
        #: How many entries and versions that stood here were made without knowledge of each other.
        self.conflicts = 0
        self._now = now()
        #: This node was restored, and what it lost is coming back: nothing is numbered before that has ended.
        self._behind = behind
        #: Edits since the restore, which have no number yet, or one that may have been used before.
        self._edited: set[UUID] = set()
        #: What is to get a number of its own when that has ended.
        self._anew: list[UUID] = []
        self._conflicts: list[ConflictRecord] = []
        self._highest: dict[str, SyncState] = {}
        self._ahead: dict[str, int] = {}

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply ``entries``, each of another resource."""
        batch = self._read(entries)
        self._look_up_references(entries, batch)
        for entry in entries:
            self.results.append(self._settle(entry, batch))
            self._highest[entry.state.endpoint.lower()] = entry.state
            self._note_clock(entry.state)
        self._write(batch)

    def rejoin(self) -> None:
        """Go on from the tick that the source has seen of us, and number again what may have a used one."""
        self._mark_anew()
        self.stored.value = self.digest
        take_higher_tick(self.resource, self.stored, self.source, f"the feed of {self.source.origin or 'a peer'}")
        self.digest = self.stored.value
        number_all_under_lock(self.resource, self.stored)
        self.digest = self.stored.value

    def finish(self, *, merge: bool) -> Digest:
        """Move the digest on (SData sync 5.5), store it and return it; ``merge`` after the last catch-up page."""
        self._mark_anew()
        digest = self.digest
        for state in self._highest.values():
            digest = digest.advance(state, stamp=self._now)
        if merge and same_endpoint(self.source.part_of, self.resource.endpoint):
            digest = digest.merge(self.source.of_origin_alone(), stamp=self._now)
        elif merge:
            digest = digest.merge(self.source, stamp=self._now)
        self.stored.save(digest.with_priorities(self.source))
        self._store_clocks()
        if merge and end_waiting(self.resource, self.source.origin):
            self.has_recorded = True
        return self.stored.value

    def _mark_anew(self) -> None:
        """Have the outcomes that others must learn as changes of ours numbered when this node is no longer behind."""
        if self._anew:
            TrackedResource.objects.using(self.resource.database).filter(
                kind=self.resource.kind, uuid__in=self._anew
            ).update(mark=self._now, is_intent=False, etag=ANEW)
            self._anew = []

    def _read(self, entries: Sequence[Entry]) -> _Batch:
        resource = self.resource
        can_lock = connections[resource.database].features.has_select_for_update
        query = _by_uuid(len(entries), lock=can_lock)
        uuids = [entry.uuid for entry in entries]
        tracked = query.instances(resource.database, TrackedResource, resource.kind, *uuids)
        # Marked by somebody who committed while we waited for the row: a local edit like any other, which the
        # decision must see.
        alive = [row.local_key for row in tracked if row.local_key]
        instances = read_instances(resource, alive)
        marked = [row for row in tracked if row.mark is not None and not row.problem]
        if self._behind is not None:
            self._edited.update(row.uuid for row in marked if self._is_edited(row, instances))
            self._edited.update(row.uuid for row in tracked if self._has_doubtful_tick(row, self._behind))
        elif marked:
            self.stored.value = self.digest  # with the ticks that conflicts were recorded under
            number(resource, self.stored, marked)
            self.digest = self.stored.value
        return _Batch(
            tracked={row.uuid: row for row in tracked},
            instances=instances,
            first_result=len(self.results),
        )

    def _look_up_references(self, entries: Sequence[Entry], batch: _Batch) -> None:
        if not self.resource.relations:
            return
        for entry in entries:
            if entry.payload is not None and not entry.is_deleted:
                batch.readings[entry.uuid] = self._read_payload(entry)
        # What goes with this very batch is not led to any more; should it stay after all, that is filled in.
        kind = self.resource.kind
        batch.known.forget((kind, entry.uuid) for entry in entries if entry.is_deleted)
        readings = [reading for reading in batch.readings.values() if isinstance(reading, Reading)]
        batch.known.look_up(target for reading in readings for target in targets_of(self.resource, reading))

    def _read_payload(self, entry: Entry) -> Reading | PayloadError:
        if entry.payload is None:
            return PayloadError("Expected a payload, found none.")
        try:
            return self.resource.read_payload(entry.payload)
        except PayloadError as error:
            return error

    def _has_doubtful_tick(self, tracked: TrackedResource, behind: Behind) -> bool:
        own = self.stored.endpoint_id(self.resource.endpoint)
        return tracked.endpoint_id == own and tracked.tick is not None and tracked.tick in behind

    def _is_edited(self, tracked: TrackedResource, instances: dict[str, models.Model]) -> bool:
        instance = instances.get(tracked.local_key or "")
        if instance is None:
            return not tracked.is_deleted
        contents = LocalVersion(self.resource, tracked, instance).contents
        return contents is None or self.resource.etag(contents, tracked.extra) != tracked.etag

    def _settle(self, entry: Entry, batch: _Batch) -> Result:
        tracked = batch.tracked.get(entry.uuid)
        held = None if tracked is None else self._held_state(tracked)
        relation = decide(entry.state, held, self.source, self._target)
        if entry.is_scoped and relation is Relation.KNOWN and self._is_matter_of_scope(held):
            relation = Relation.NEWER
        if entry.uuid in self._edited and not self._target.contains(entry.state):
            relation = Relation.CONCURRENT  # whatever the endpoints: our own lost change did not know of the edit
        if relation is Relation.KNOWN:
            if held is not None:
                self._note_clone(entry, held)
            return result_of(self.resource, entry, tracked, message=UNCHANGED)
        is_alias = tracked is not None and tracked.replaced_by is not None and not entry.is_deleted
        if relation is Relation.CONCURRENT and not is_alias:
            assert held is not None
            assert tracked is not None
            local = LocalVersion(self.resource, tracked, batch.instances.get(tracked.local_key or ""))
            return self._settle_conflict(self._version(entry, tracked, batch), held, local, batch)
        version = self._version(entry, tracked, batch)
        return self._accept(version, entry.state, batch)

    def _is_matter_of_scope(self, held: SyncState | None) -> bool:
        """Tell whether whoever chooses our part may show or take away what we hold: not over a change it lacks."""
        chooses = self.source.part_of and same_endpoint(self.source.part_of, self.source.origin)
        return bool(chooses) and (held is None or self.source.contains(held))

    def _held_state(self, tracked: TrackedResource) -> SyncState | None:
        if tracked.mark is not None and (tracked.problem or tracked.uuid in self._edited):
            # An edit that is not numbered, because it is held back or we were restored: the local version all the same.
            own, stamp = self.resource.endpoint, stamp_after(tracked.mark, tracked.stamp)
            return SyncState(endpoint=own, tick=self._free_tick(), stamp=stamp, user=tracked.mark_user)
        if tracked.tick is None or tracked.endpoint_id is None:
            return None
        url = self.stored.endpoint_url(tracked.endpoint_id)
        return SyncState(endpoint=url, tick=tracked.tick, stamp=tracked.stamp, user=tracked.user)

    def _version(self, entry: Entry, tracked: TrackedResource | None, batch: _Batch) -> _Version:
        is_new = tracked is None
        if tracked is None:
            tracked = new_tracked(self.resource.kind, entry.uuid)
            batch.tracked[entry.uuid] = tracked
        version = _Version(entry=entry, tracked=tracked, is_new=is_new, is_deleted=entry.is_deleted)
        instance = batch.instances.get(tracked.local_key or "")
        try:
            self._prepare_row(version, instance, batch)
        except PayloadError as error:
            version.error = error
        return version

    def _prepare_row(self, version: _Version, instance: models.Model | None, batch: _Batch) -> None:
        entry = version.entry
        if entry.is_deleted:
            if instance is not None and version.tracked.tick is None and version.tracked.etag == KEPT:
                version.keeps_row, version.is_deleted = True, False  # linked, and ours was to win
            elif instance is not None and entry.replaced_by is not None:
                version.renames = str(instance.pk)
            elif instance is not None:
                version.row = RowChange(instance=instance, is_deletion=True, is_withdrawal=entry.is_withdrawn)
            return
        reading = batch.readings.get(entry.uuid) or self._read_payload(entry)
        if isinstance(reading, PayloadError):
            raise reading
        version.reading = reading
        version.row = prepare_row(self.resource, instance, reading, batch.known)
        self._keep_waiting(version, reading.related)
        if instance is None:
            version.same_as = self._same_row(version)
            if version.same_as or version.revives is not None:
                version.row = None
        elif version.tracked.tick is None and version.tracked.etag == KEPT:
            version.row, version.keeps_row = None, True

    def _keep_waiting(self, version: _Version, brought: Container[str]) -> None:
        if version.row is not None and version.tracked.is_incomplete:
            waiting = waiting_of(self.resource, [version.tracked])
            keep_waiting(self.resource, version.row, brought, waiting.get(version.tracked.local_key or "", {}))

    def _same_row(self, version: _Version) -> str:
        """Return the key of the row that is the same thing as the new one that came, empty if there is none."""
        survivor = survivor_of(self.resource, version.tracked)
        if survivor is not version.tracked:
            version.revives = survivor if survivor.local_key is None else None
            return survivor.local_key or ""
        assert version.row is not None
        try:
            duplicate = self.resource.find_duplicate(version.row.instance)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("find_duplicate() of %r failed; the entry waits", self.resource)
            raise PayloadError(f"find_duplicate(): {type(error).__name__}: {error}", public="Refused.") from error
        return "" if duplicate is None else str(duplicate.pk)

    def _etag(self, version: _Version, local: LocalVersion) -> str:
        assert version.row is not None
        plain = self.resource.texts_of(version.row.instance)
        contents = merged(self.resource, plain, version.reading, local.contents)
        return self.resource.etag(contents, version.reading.extra)

    def _settle_conflict(self, version: _Version, held: SyncState, local: LocalVersion, batch: _Batch) -> Result:
        entry, tracked = version.entry, version.tracked
        version.is_concurrent = True
        same_content = self._has_same_content(version, local)
        outcome = resolve(entry.state, held, self.source, self._target, same_content=same_content)
        if not same_content:
            outcome = self._as_the_application_says(version, held, local, outcome, batch)
            self._note_conflict(version, held, local, outcome)
        if entry.is_withdrawn and outcome.source_wins:  # nothing that others must learn: it is gone from here only
            outcome = replace(outcome, record=False)
        state = entry.state if outcome.source_wins else held
        if outcome.record and self._behind is not None:
            self._anew.append(entry.uuid)
        elif outcome.record:
            state = self._recorded(state, entry.state, held)
        if outcome.source_wins:
            return self._accept(version, state, batch)
        if outcome.record and self._behind is None:
            self._set_state(tracked, state)
            batch.touched[tracked.uuid] = tracked
        if tracked.problem:
            # An edit that is held back has won. Should it be undone, that is a change still.
            tracked.etag = ""
            batch.touched[tracked.uuid] = tracked
        if same_content:
            return result_of(self.resource, entry, tracked, message=UNCHANGED)
        return lost_result(self.resource, entry, tracked, outcome)

    def _as_the_application_says(
        self, version: _Version, held: SyncState, local: LocalVersion, outcome: Resolution, batch: _Batch
    ) -> Resolution:
        """Return the outcome after the application was heard; a merged version takes the received one's place."""
        resource, tracked = self.resource, version.tracked
        if type(resource).resolve is SyncResource.resolve or version.error is not None or tracked.is_deferred:
            return outcome
        row = version.row
        remote = None
        if row is not None and not row.is_deletion:
            remote = {name: getattr(row.instance, name) for name in row.names}
        decision = ask_application(resource, version.entry, held, local, remote, outcome)
        if decision is None:
            return outcome
        if not isinstance(decision, Mapping):
            source_wins = decision == "remote"
            is_otherwise = source_wins != outcome.source_wins
            record = is_otherwise or outcome.record
            return Resolution(source_wins=source_wins, by=Rule.APPLICATION, record=record)
        instance = row.instance if row is not None else batch.instances.get(tracked.local_key or "") or resource.model()
        if local.values is not None:
            set_values(instance, local.values, is_new=False)
        names = set_values(instance, dict(decision), is_new=tracked.local_key is None)
        version.is_deleted = False
        version.row = RowChange(instance=instance, names=names, is_new=tracked.local_key is None)
        self._keep_waiting(version, ())
        return Resolution(source_wins=True, by=Rule.APPLICATION, record=True)

    def _note_conflict(self, version: _Version, held: SyncState, local: LocalVersion, outcome: Resolution) -> None:
        logger.info(
            "%s %s: conflict between %s and %s, won by the %s (%s)",
            self.resource.kind,
            version.entry.uuid,
            version.entry.state,
            held,
            "source" if outcome.source_wins else "target",
            outcome.by,
        )
        record = record_of(
            version.tracked, version.entry, held, local, remote_won=outcome.source_wins, rule=str(outcome.by)
        )
        self._conflicts.append(record)

    def _has_same_content(self, version: _Version, local: LocalVersion) -> bool:
        tracked, entry = version.tracked, version.entry
        if tracked.is_deferred or version.error is not None or tracked.problem:
            return False
        if entry.is_deleted or tracked.is_deleted:
            return entry.is_deleted and tracked.is_deleted
        try:
            return self._etag(version, local) == tracked.etag
        except PayloadError:
            return False

    def _recorded(self, winner: SyncState, *both: SyncState) -> SyncState:
        """Return the state of a change of our own: the outcome of a decision that others must learn as such."""
        own = self.resource.endpoint
        stamp = stamp_after(self._now, *(state.stamp for state in both))
        state = SyncState(endpoint=own, tick=self._free_tick(), stamp=stamp, user=winner.user)
        self.digest = self.digest.advance(state, stamp=self._now)
        self.has_recorded = True
        return state

    def _free_tick(self) -> int:
        # Beyond whatever anybody has seen of us, should we have been restored from a backup.
        own = self.resource.endpoint
        return max(self.digest.tick(own), self.source.tick(own))

    def _accept(self, version: _Version, state: SyncState, batch: _Batch) -> Result:
        entry, tracked = version.entry, version.tracked
        has_row = tracked.local_key or version.same_as or version.revives
        method = "DELETE" if entry.is_deleted else "PUT" if has_row else "POST"
        self._set_state(tracked, state)
        if version.row is not None:
            version.row.state = state
        batch.versions.append(version)
        if not version.is_new:
            batch.touched[tracked.uuid] = tracked
        return result_of(self.resource, entry, tracked, message="OK", method=method)

    def _set_state(self, tracked: TrackedResource, state: SyncState) -> None:
        tracked.endpoint_id = self.stored.endpoint_id(state.endpoint)
        tracked.tick, tracked.stamp, tracked.user = state.tick, state.stamp, state.user[:150]

    def _write(self, batch: _Batch) -> None:
        resource = self.resource
        ConflictRecord.objects.using(resource.database).bulk_create(self._conflicts)
        self.conflicts += len(self._conflicts)
        # Before the rows: what an application's receivers mark from here on is a change of theirs.
        self._clear_marks([v.tracked for v in batch.versions if not v.is_new])
        write_rows(resource, [v.row for v in batch.versions if v.row is not None and v.error is None])
        replaced = [v.tracked for v in batch.versions if v.tracked.is_deferred]
        waited = [v.tracked.pk for v in batch.versions if v.tracked.is_deferred or v.tracked.is_incomplete]
        for version in batch.versions:
            self._note_outcome(version)
        self._make_room(batch.versions)
        create_tracked(resource.database, [v.tracked for v in batch.versions if v.is_new])
        update_tracked(resource.database, list(batch.touched.values()), with_marks=False)
        forget(resource, [row for row in replaced if not row.is_deferred])
        self._note_pending([v for v in batch.versions if v.tracked.is_incomplete], waited)
        self._defer([v for v in batch.versions if v.error is not None])
        self._amend_results(batch)
        self._amend_links(batch)
        self.has_written = self.has_written or bool(batch.versions)
        announce(resource, self._conflicts, [(v.tracked, v.error is not None) for v in batch.versions])
        self._conflicts = []

    def _clear_marks(self, replaced: Iterable[TrackedResource]) -> None:
        """Take back the marks of what a received version replaces: an edit that lost, or never was one.

        Not the mark of somebody who is writing the row this very moment: that row is still to come.
        """
        keys = []
        for tracked in replaced:
            if tracked.mark is not None and not is_young_intent(tracked, self._now):
                tracked.mark, tracked.is_intent, tracked.problem = None, False, ""
                keys.append(tracked.pk)
        if keys:
            TrackedResource.objects.using(self.resource.database).filter(pk__in=keys).update(
                mark=None, is_intent=False, problem=""
            )

    def _make_room(self, versions: Iterable[_Version]) -> None:
        """Part the rows just created from whatever is still tracked under their keys.

        That is left from a row that was deleted past the ORM and whose key the database gives again, or was
        made by application code that wrote the new row again while it was being applied.
        """
        created = {
            v.tracked.local_key: v.entry.uuid for v in versions if v.row is not None and v.row.is_new and not v.error
        }
        if not created:
            return
        database, kind = self.resource.database, self.resource.kind
        found = _by_key(len(created)).rows(database, kind, *created)
        taken = [pk for pk, key, uuid in found if uuid != created[key]]
        if not taken:
            return
        others = TrackedResource.objects.using(database).filter(pk__in=taken)
        others.filter(tick__isnull=True, is_deferred=False).delete()
        others.update(local_key=None, mark=self._now, is_intent=False)

    def _amend_links(self, batch: _Batch) -> None:
        """Do what concerns more than one resource: what is one thing with another row, and what was renamed."""
        resource = self.resource
        for version in batch.versions:
            if version.error is not None:
                continue
            uuid, replaced_by = version.entry.uuid, version.entry.replaced_by
            if version.tracked.replaced_by != replaced_by:
                tracked_rows(resource).filter(uuid=uuid).update(replaced_by=replaced_by)
            if version.renames and replaced_by is not None:
                rename(resource, version.renames, uuid, replaced_by, is_edited=version.is_concurrent)
            elif version.keeps_row:
                tracked_rows(resource).filter(uuid=uuid).update(etag=ANEW, mark=self._now)
                self.has_recorded = True
            elif version.same_as:
                self._unite(version, batch)
            elif version.revives is not None:
                self._revive(version, version.revives, batch)

    def _revive(self, version: _Version, survivor: TrackedResource, batch: _Batch) -> None:
        """Decide what came under an old name against the deletion of what has the new one."""
        resource = self.resource
        survivor.refresh_from_db(using=resource.database)
        held = self._held_state(survivor)
        if held is None:
            return
        outcome = resolve(version.entry.state, held, self.source, self._target, same_content=False)
        local = LocalVersion(resource, survivor, None)
        record = record_of(
            survivor, version.entry, held, local, remote_won=outcome.source_wins, rule=f"same thing; {outcome.by}"
        )
        ConflictRecord.objects.using(resource.database).bulk_create([record])
        self.conflicts += 1
        keep_alias(resource, version.entry.uuid, survivor.uuid)
        self.has_recorded = True
        if not outcome.source_wins:
            self._set_result(version, lost_result(resource, version.entry, survivor, outcome))
            return
        try:
            revive(resource, survivor, version.reading, batch.known)
        except PayloadError as error:
            version.error = error
            self._defer_late(version)

    def _unite(self, version: _Version, batch: _Batch) -> None:
        resource, key = self.resource, version.same_as
        twin = self._numbered(key)
        instance = read_instances(resource, [key]).get(key)
        held = None if twin is None else self._held_state(twin)
        if twin is None or instance is None or held is None or twin.uuid == version.entry.uuid:
            version.error = PayloadError(
                f"It is the same thing as {resource.kind}('{key}'), which cannot be taken now."
            )
        else:
            union = Union(
                resource=resource, entry=version.entry, reading=version.reading, twin=twin, instance=instance,
                known=batch.known,
            )  # fmt: skip
            try:
                with transaction.atomic(using=resource.database):
                    outcome = union.settle(held, self.source, self._target)
            except PayloadError as error:
                version.error = error
            else:
                self.has_recorded = True
                self.conflicts += union.is_conflict
                if not outcome.source_wins:
                    self._set_result(version, lost_result(resource, version.entry, twin, outcome))
        if version.error is not None:
            self._defer_late(version)

    def _set_result(self, version: _Version, result: Result) -> None:
        index = next(i for i, present in enumerate(self.results) if present.uuid == version.entry.uuid)
        self.results[index] = result

    def _defer_late(self, version: _Version) -> None:
        assert version.error is not None
        rows = tracked_rows(self.resource).filter(uuid=version.entry.uuid)
        rows.update(is_deferred=True, is_deleted=False, replaced_by=None, mark=None)
        self._defer([version])
        result = next(result for result in self.results if result.uuid == version.entry.uuid)
        self._set_result(version, deferred_result(result, version.error))

    def _numbered(self, key: str) -> TrackedResource | None:
        """Return the resource of the row ``key``, tracked and numbered: a version like any other."""
        row = tracked_rows(self.resource).filter(local_key=key).first()
        if row is None:
            link(self.resource, key, None)
            row = tracked_rows(self.resource).get(local_key=key)
        if row.mark is not None and not row.problem and self._behind is None:
            self.stored.value = self.digest
            number(self.resource, self.stored, [row])
            self.digest = self.stored.value
        return row

    def _note_pending(self, incomplete: Sequence[_Version], replaced: Sequence[int]) -> None:
        if incomplete or replaced:
            self._find_created(version.tracked for version in incomplete if version.is_new)
            pending = {v.tracked.pk: v.row.pending for v in incomplete if v.row is not None}
            store_pending(self.resource, pending, replaced=replaced)

    def _defer(self, failed: Sequence[_Version]) -> None:
        self._find_created(version.tracked for version in failed if version.is_new)
        for version in failed:
            entry = version.entry
            assert version.error is not None
            defer(self.resource, version.tracked, version.error, entry.payload, is_deleted=entry.is_deleted)

    def _find_created(self, created: Iterable[TrackedResource]) -> None:
        by_uuid = {tracked.uuid: tracked for tracked in created}
        if by_uuid:
            rows = TrackedResource.objects.using(self.resource.database).filter(kind=self.resource.kind)
            for uuid, pk in rows.filter(uuid__in=list(by_uuid)).values_list("uuid", "pk"):
                by_uuid[uuid].pk = pk

    def _note_outcome(self, version: _Version) -> None:
        tracked, row = version.tracked, version.row
        if row is not None and row.error is not None:
            # What came in the same feed may have been the first of the two.
            try:
                version.same_as = self._same_row(version) if row.is_new else ""
                version.error = None if version.same_as else row.error
            except PayloadError as error:
                version.error = error
        tracked.is_deferred = version.error is not None
        tracked.is_incomplete = version.error is None and row is not None and bool(row.pending)
        if version.error is not None:
            tracked.is_deleted = False
            return
        tracked.is_deleted, tracked.extra = version.is_deleted, version.reading.extra
        if version.keeps_row:
            return
        if version.is_deleted or version.same_as or version.revives is not None:  # until it is one with the other row
            tracked.is_deleted, tracked.local_key, tracked.etag = True, None, ""
        else:
            assert row is not None
            tracked.local_key = str(row.instance.pk)
            # Of what was written, which is not always what came: a model may complete what it saves.
            tracked.etag = self.resource.etag(row.texts, version.reading.extra)

    def _amend_results(self, batch: _Batch) -> None:
        versions = {version.entry.uuid: version for version in batch.versions}
        for index in range(batch.first_result, len(self.results)):
            result = self.results[index]
            version = versions.get(result.uuid)
            if version is None:
                continue
            if version.error is not None:
                self.results[index] = deferred_result(result, version.error)
            elif result.method == "POST":
                url = self.resource.resource_url(version.tracked.local_key or "")
                self.results[index] = created_result(result, url)

    def _note_clone(self, entry: Entry, held: SyncState) -> None:
        """Say it loudly if one tick names two changes: two live nodes have one BASE_URL. Nothing is merged."""
        state = entry.state
        if state.tick != held.tick or state.stamp == held.stamp or not same_endpoint(state.endpoint, held.endpoint):
            return
        note = (
            f"Its tick {state.tick} came as a change of {self.resource.kind} {entry.uuid} at "
            f"{format_stamp(state.stamp)}; here it is one of {format_stamp(held.stamp)}. Two nodes have one BASE_URL, "
            "or one was restored and used ticks again. Compare the nodes, and give each its own."
        )
        logger.error("%s: %s", state.endpoint, note)
        Endpoint.objects.using(self.resource.database).filter(pk=self.stored.endpoint_id(state.endpoint)).update(
            clone_seen_at=timezone.now(), clone_note=note
        )

    def _note_clock(self, state: SyncState) -> None:
        ahead = state.stamp - self._now
        if ahead > conf.max_clock_skew * 1000:
            self._ahead[state.endpoint] = max(ahead, self._ahead.get(state.endpoint, 0))

    def _store_clocks(self) -> None:
        for endpoint, ahead in self._ahead.items():
            logger.warning(
                "%s stamps its changes %.1f s ahead of our clock: it will win conflicts that it should not. "
                "Set its clock, or ours.",
                endpoint,
                ahead / 1000,
            )
            Endpoint.objects.using(self.resource.database).filter(pk=self.stored.endpoint_id(endpoint)).update(
                clock_ahead=ahead, clock_ahead_at=timezone.now()
            )
