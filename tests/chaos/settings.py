"""The test project, in a hurry, with errors of its database."""

from testproject.settings import *  # noqa: F403
from testproject.settings import SDATA_SYNC

from .errors import install

SDATA_SYNC = {
    **SDATA_SYNC,
    "TIMEOUT_SECONDS": 4,
    "LEASE_SECONDS": 12,
    "MAX_BACKOFF_SECONDS": 3,
    "POLL_SECONDS": 3,
    "PAGE_SIZE": 20,
    "DRAIN_SECONDS": 1,
}
install()
