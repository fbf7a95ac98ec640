"""The settings of the tests of ``sdata_sync.contrib.files``."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "sdata_sync.contrib.files", "tests.files"]
