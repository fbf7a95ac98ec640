"""Limit the requests of one login within a minute.

The limits that a project sets for people (``DEFAULT_THROTTLE_CLASSES``) do not apply to the views of this app: a peer
makes many short requests when many rows change.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from ..conf import conf
from ..sync.db.clock import now

logger = logging.getLogger(__name__)

MINUTE_MILLIS = 60_000


class PeerThrottle(BaseThrottle):
    """Count the requests of each login in the default cache; refuse more than ``MAX_REQUESTS_PER_MINUTE`` (429).

    With a cache in the memory of each process, each process counts for itself. A cache that cannot be reached limits
    nothing.
    """

    def allow_request(self, request: Request, view: Any) -> bool:
        """Return True if the login has made fewer requests in this minute than the setting says."""
        key = f"sdata_sync.requests.{request.user.pk}.{now() // MINUTE_MILLIS}"
        try:
            if cache.add(key, 1, 2 * MINUTE_MILLIS // 1000):
                return True
            return bool(cache.incr(key) <= conf.max_requests_per_minute)
        except ValueError:  # the counter was evicted between the two calls
            return True
        except Exception as error:  # a client of a cache server raises exceptions of its own
            logger.warning("The requests cannot be counted: %s", error)
            return True

    def wait(self) -> float:
        """Return the number of seconds until the next minute begins."""
        return (MINUTE_MILLIS - now() % MINUTE_MILLIS) / 1000
