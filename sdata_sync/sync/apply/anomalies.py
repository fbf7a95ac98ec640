"""Detect anomalies in the sync states of received entries: clocks that are ahead, and ticks that were used twice."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.utils import timezone

from ...atom.text import format_stamp
from ...conf import conf
from ...core.state import SyncState, same_endpoint
from ...models import Endpoint

if TYPE_CHECKING:
    from ...atom.entry import Entry
    from ...kind import Kind
    from ..log.digests import StoredDigest

logger = logging.getLogger(__name__)


class Anomalies:
    """Log clocks that are ahead and endpoints that assign one tick to two changes; store both on the Endpoint."""

    def __init__(self, kind: Kind, stored: StoredDigest, now: int) -> None:
        self._kind = kind
        self._stored = stored
        self._now = now
        self._ahead: dict[str, int] = {}
        #: By endpoint, the lowest tick that another node has claimed before the endpoint delivered it.
        self._claimed: dict[str, int] = {}

    def _store(self, endpoint: str, **values: object) -> None:
        row = Endpoint.objects.using(self._kind.database).filter(pk=self._stored.ensure_endpoint_id(endpoint))
        row.update(**values)

    def check_tick(self, entry: Entry, local: SyncState) -> None:
        """Store a warning if one tick has two changes: two nodes have one BASE_URL. Nothing is merged."""
        state = entry.state
        if state.tick != local.tick or state.stamp == local.stamp or not same_endpoint(state.endpoint, local.endpoint):
            return
        note = (
            f"Its tick {state.tick} was received as a change of {self._kind.name} {entry.uuid} at "
            f"{format_stamp(state.stamp)}; at this node it is a change at {format_stamp(local.stamp)}. Two nodes have "
            "one BASE_URL, or a node was restored and assigned ticks again. Compare the nodes, and give each its own "
            "BASE_URL."
        )
        logger.error("%s: %s", state.endpoint, note)
        self._store(state.endpoint, clone_seen_at=timezone.now(), clone_note=note)

    def add_false_claim(self, state: SyncState) -> None:
        """Remember that an endpoint has delivered a change that this node seemed to have already."""
        self._claimed.setdefault(state.endpoint, state.tick)

    def check_stamp(self, state: SyncState) -> None:
        """Remember an endpoint whose stamp is more than ``MAX_CLOCK_SKEW_SECONDS`` ahead of this node's clock."""
        ahead = state.stamp - self._now
        if ahead > conf.max_clock_skew_seconds * 1000:
            self._ahead[state.endpoint] = max(ahead, self._ahead.get(state.endpoint, 0))

    def store(self) -> None:
        """Log and store the clocks that are ahead and the claims, once for each endpoint."""
        for endpoint, tick in self._claimed.items():
            note = (
                f"It delivered its change with tick {tick}, which this node should have had already: another node had "
                "claimed a tick that this endpoint had not reached. The change was applied."
            )
            logger.warning("%s, in a feed of %s: %s", endpoint, self._kind.name, note)
            self._store(endpoint, anomaly_at=timezone.now(), anomaly_note=note)
        for endpoint, ahead in self._ahead.items():
            logger.warning(
                "%s stamps its changes %.1f s ahead of this node's clock, so it wins conflicts that it should lose. "
                "Correct the clock of that node or of this node.",
                endpoint,
                ahead / 1000,
            )
            self._store(endpoint, clock_ahead=ahead, clock_ahead_at=timezone.now())
