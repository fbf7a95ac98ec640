"""The test project with short pauses between two attempts to reach a peer."""

from testproject.settings import *  # noqa: F403
from testproject.settings import SDATA_SYNC

SDATA_SYNC = {**SDATA_SYNC, "MAX_BACKOFF_SECONDS": 3}
