"""Telling a source what became of its changes (SData sync 5.7)."""

import logging

from ..exceptions import PeerRefused
from ..sync.runs import RunLabel
from .client import ABSENT, PeerClient

logger = logging.getLogger(__name__)


class Reporter:
    """Posts the result feeds of one run, until the source does not want them."""

    def __init__(self, client: PeerClient, kind: str, label: RunLabel) -> None:
        self._client, self._kind, self._label = client, kind, label
        self._is_wanted = True

    def report(self, results: bytes | None) -> None:
        """Post one result feed, if there is one.

        Raises:
            PeerError: the source cannot be reached.
        """
        if results is None or not self._is_wanted:
            return
        try:
            self._client.post_results(self._kind, results, run=self._label)
        except PeerRefused as refusal:
            # Not every peer has the URL, and not everybody who may read may report: that is no reason to stop.
            self._is_wanted = False
            level = logging.DEBUG if refusal.status in ABSENT else logging.WARNING
            logger.log(level, "The results are not reported any more: %s", refusal)
