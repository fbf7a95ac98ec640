"""The test project as the node that the specification's examples call myApp2."""

import os

import dj_database_url

os.environ.setdefault("SDATA_BASE_URL", "http://www.example.com/sdata/myApp2/myContract/-")
os.environ.setdefault("SDATA_DELIVERY", "sdata_sync.delivery.backends.manual.ManualDelivery")

from testproject.settings import *  # noqa: F403
from testproject.settings import DATABASES, INSTALLED_APPS, MIDDLEWARE, SDATA_SYNC

ALLOWED_HOSTS = ["*"]
MIDDLEWARE = ["tests.validation.ValidatingMiddleware", *MIDDLEWARE]
INSTALLED_APPS = [*INSTALLED_APPS, "tests.shapes"]
# Most tests have peers that nobody is.
# Many tests delete all rows that they have; tests/hostile has tests of those limits.
SDATA_SYNC = {
    **SDATA_SYNC,
    "ASK_PEERS_FIRST": False,
    "MAX_DELETIONS": 10**6,
    "MAX_DELETION_PERCENT": 100,
}
DATABASES["default"].setdefault("TEST", {})
# Nodes that live in one process, each with a database of its own: see tests/many_nodes.py. SDATA_NODES_ON names a server,
# or several with commas between them, which the nodes take in turns; "memory" is SQLite.
_servers = os.environ.get("SDATA_NODES_ON", "memory").split(",")
for _number, _name in enumerate(("node0", "node1", "node2")):
    _server = _servers[_number % len(_servers)]
    if _server != "memory":
        # Kept open: a connection for each request costs more than the request.
        _database_of_node = f"{os.environ.get('SDATA_NODES_NAME', 'sdata_sync')}_{_name}"
        DATABASES[_name] = dj_database_url.parse(f"{_server}/{_database_of_node}", conn_max_age=600)
    else:
        DATABASES[_name] = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": ":memory:",
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        }
for _database in DATABASES.values():
    if _database["ENGINE"] == "django.db.backends.postgresql":
        # A test does not wait for the disk. Nothing but a crash of the server can tell the difference; `make chaos` has those.
        _database.setdefault("OPTIONS", {})["options"] = "-c synchronous_commit=off"
DATABASE_ROUTERS = ["tests.many_nodes.NodeRouter"]
# A login in a test is no place to spend a quarter of a second.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
