"""Deciding: a received version against what stands here, made without knowledge of each other (SData sync 5.4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from ..core.decision import Resolution, Rule, resolve
from ..core.state import SyncState
from ..exceptions import PayloadError
from .changes import RowChange, set_values
from .disputes import ask_application, record_of
from .isolation import row_guard
from .local_version import LocalVersion, decides_itself, value_of
from .recording import Recorder
from .relations.contents import merged
from .versions import Batch, Version

logger = logging.getLogger(__name__)


class Contest:
    """A received version, and what stands here: its state ``held``, and its content as it was before.

    Without ``by_priority`` the stamps decide alone.
    """

    def __init__(
        self,
        recorder: Recorder,
        batch: Batch,
        version: Version,
        *,
        held: SyncState,
        local: LocalVersion,
        by_priority: bool = True,
    ) -> None:
        self._by_priority = by_priority
        self._resource = recorder.resource
        self._recorder = recorder
        self._batch = batch
        self._version = version
        self._held = held
        self._local = local

    def settle(self) -> Resolution:
        """Return the outcome, by the rules or as the application says; it is noted, for people, with the batch.

        A version that the application has merged takes the received one's place.
        """
        version, held, recorder = self._version, self._held, self._recorder
        version.is_concurrent = True
        state, same_content = version.entry.state, self._has_same_content()
        outcome = resolve(
            state,
            held,
            recorder.source,
            recorder.target,
            same_content=same_content,
            by_priority=self._by_priority,
        )
        if not same_content:
            outcome = self._as_the_application_says(outcome)
            self._note(outcome)
        if version.entry.is_withdrawn and outcome.source_wins:
            # Nothing that others must learn: it is gone from here only.
            outcome = replace(outcome, record=False)
        return outcome

    def _has_same_content(self) -> bool:
        version, tracked, entry = self._version, self._version.tracked, self._version.entry
        if tracked.is_deferred or version.error is not None or tracked.problem:
            return False
        if entry.is_deleted or tracked.is_deleted:
            return entry.is_deleted and tracked.is_deleted
        try:
            with row_guard(self._resource.database, savepoint=False):
                return self._etag() == tracked.etag
        except PayloadError:
            return False

    def _etag(self) -> str:
        resource, version = self._resource, self._version
        assert version.row is not None
        plain = resource.texts_of(version.row.instance)
        contents = merged(resource, plain, version.reading, self._local.contents)
        return resource.etag(contents, version.reading.extra)

    def _as_the_application_says(self, outcome: Resolution) -> Resolution:
        resource, version, row = self._resource, self._version, self._version.row
        if not decides_itself(resource) or version.error is not None or version.tracked.is_deferred:
            return outcome
        remote = None
        if row is not None and not row.is_deletion:
            remote = {name: value_of(row.instance, name) for name in row.names}
        decision = ask_application(resource, version.entry, self._held, self._local, remote, outcome)
        if decision is None:
            return outcome
        if isinstance(decision, Mapping):
            self._merge(decision)
            return Resolution(source_wins=True, by=Rule.APPLICATION, record=True)
        source_wins = decision == "remote"
        record = outcome.record or source_wins != outcome.source_wins
        return Resolution(source_wins=source_wins, by=Rule.APPLICATION, record=record)

    def _merge(self, values: Mapping[str, object]) -> None:
        resource, version = self._resource, self._version
        is_new = version.tracked.local_key is None
        if version.row is not None:
            instance = version.row.instance
        else:
            instance = self._batch.instance_of(version.tracked) or resource.model()
        if self._local.values is not None:
            set_values(instance, self._local.values, is_new=False)
        names = set_values(instance, values, is_new=is_new)
        version.is_deleted = False
        version.row = RowChange(instance=instance, names=names, is_new=is_new)
        version.keep_waiting(resource, ())

    def _note(self, outcome: Resolution) -> None:
        version = self._version
        logger.info(
            "%s %s: conflict between %s and %s, won by the %s (%s)",
            self._resource.kind,
            version.entry.uuid,
            version.entry.state,
            self._held,
            "source" if outcome.source_wins else "target",
            outcome.by,
        )
        record = record_of(
            version.tracked,
            version.entry,
            self._held,
            self._local,
            remote_won=outcome.source_wins,
            rule=str(outcome.by),
        )
        self._batch.conflicts.append(record)
