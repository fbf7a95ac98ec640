"""The test project on a SQLite file whose writers do not wait: two at once are an error."""

from testproject.settings import *  # noqa: F403
from testproject.settings import DATABASES

DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 0,
}
