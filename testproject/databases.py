"""The databases of nodes: a SQLite file each, or, with ``SDATA_SERVER``, a database on a server.

``SDATA_SERVER`` is a URL like ``postgres://user@127.0.0.1:5432`` or ``mysql://user@127.0.0.1:3306``.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

Row = tuple[Any, ...]


class SQLiteFile:
    """A file."""

    vendor = "sqlite"

    def __init__(self, name: str, directory: Path) -> None:
        self.path = directory / f"{name}.sqlite3"
        self.url = f"sqlite:///{self.path}"

    def create(self, template: SQLiteFile | None = None) -> None:
        """Copy ``template``, which nobody has open; without one do nothing, as it is made by whoever opens it."""
        if template is not None:
            shutil.copy(template.path, self.path)

    def drop(self) -> None:
        """Do nothing: it goes with its directory."""

    def query(self, sql: str, *parameters: Any) -> list[Row]:
        """Read past all of the code, as another program would."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=20)) as connection:
            return connection.execute(sql, parameters).fetchall()


class ServerDatabase:
    """A database of a server, with a name of its own."""

    def __init__(self, name: str, server: str) -> None:
        parts = urlsplit(server)
        self.vendor = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql"}[parts.scheme]
        self._server = {
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or {"postgresql": 5432, "mysql": 3306}[self.vendor],
            "user": parts.username or "root",
            "password": parts.password or "",
        }
        self.name = f"sdata_{name}_{uuid4().hex[:10]}"
        self.url = f"{parts.scheme}://{parts.netloc}/{self.name}"
        self._connection: Any = None

    def _connect(self, database: str) -> Any:
        if self.vendor == "postgresql":
            import psycopg

            return psycopg.connect(dbname=database, autocommit=True, **self._server)
        import pymysql

        mode = "SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')"
        return pymysql.connect(database=database, autocommit=True, init_command=mode, **self._server)

    def create(self, template: ServerDatabase | None = None) -> None:
        """Make it, empty or as a copy of ``template``, to which nobody is connected."""
        if self.vendor == "postgresql":
            self._execute(f'CREATE DATABASE "{self.name}"' + (f' TEMPLATE "{template.name}"' if template else ""))
            if template is not None:  # for a test, which does not wait for the disk
                self._execute(f'ALTER DATABASE "{self.name}" SET synchronous_commit = off')
            return
        self._execute(f'CREATE DATABASE "{self.name}"')
        if template is not None:
            with closing(self._connect(self.name)) as connection:
                copy_tables(connection.cursor(), template.name)

    def drop(self) -> None:
        """Remove it, whoever is connected."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        force = " WITH (FORCE)" if self.vendor == "postgresql" else ""
        self._execute(f'DROP DATABASE IF EXISTS "{self.name}"{force}')

    def _execute(self, sql: str) -> None:
        with closing(self._connect("postgres" if self.vendor == "postgresql" else "")) as connection:
            connection.cursor().execute(sql)

    def query(self, sql: str, *parameters: Any) -> list[Row]:
        """Read past all of the code, as another program would."""
        if self._connection is None:
            self._connection = self._connect(self.name)
        cursor = self._connection.cursor()
        cursor.execute(sql.replace("%", "%%").replace("?", "%s") if parameters else sql, parameters or None)
        return [tuple(row) for row in cursor.fetchall()]


def copy_tables(cursor: Any, source: str) -> None:
    """Copy all tables of the MariaDB database ``source`` into the one that the cursor is at."""
    cursor.execute("SELECT DATABASE()")
    [(target,)] = cursor.fetchall()
    cursor.execute("SET foreign_key_checks = 0")
    cursor.execute(f"SHOW TABLES FROM `{source}`")
    for (table,) in cursor.fetchall():
        cursor.execute(f"USE `{source}`")
        cursor.execute(f"SHOW CREATE TABLE `{table}`")
        [(_, statement)] = cursor.fetchall()
        cursor.execute(f"USE `{target}`")
        cursor.execute(statement)
        cursor.execute(f"INSERT INTO `{table}` SELECT * FROM `{source}`.`{table}`")
    cursor.execute("SET foreign_key_checks = 1")


def database_for(name: str, directory: Path) -> SQLiteFile | ServerDatabase:
    """Return a database for the node called ``name``, where the environment wants it."""
    server = os.environ.get("SDATA_SERVER", "")
    return ServerDatabase(name, server) if server else SQLiteFile(name, directory)


def why_not(server: str) -> str:
    """Return why ``server`` cannot be used, empty if it can."""
    parts = urlsplit(server)
    try:
        if parts.scheme == "mysql":
            import pymysql

            connection = pymysql.connect(host=parts.hostname, port=parts.port, user=parts.username, connect_timeout=3)
        else:
            import psycopg

            connection = psycopg.connect(f"{server}/postgres", connect_timeout=3)
        connection.close()
    except Exception as error:  # whatever it is, it is said
        return f"{type(error).__name__}: {error}"
    return ""
