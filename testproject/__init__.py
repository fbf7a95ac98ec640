"""The test project. MySQL and MariaDB are reached with PyMySQL where there is no mysqlclient, which has to be built."""

import os
from importlib.util import find_spec

if find_spec("MySQLdb") is None and find_spec("pymysql") is not None:
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)  # of the mysqlclient that it stands for
    pymysql.install_as_MySQLdb()

if os.environ.get("SDATA_BROKER"):
    # As every project that uses Celery does: without this, tasks are sent by an app that knows no broker.
    from .celery import app as celery_app  # noqa: F401
