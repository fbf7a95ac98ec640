"""How the test databases are made and emptied.

Django migrates each database, and after a test with transactions of its own it flushes every table and makes all content
types and permissions anew. That takes a second for each database and 50 ms for each database and test. Here the default
database is migrated and the others are copied from it, and only the tables that hold rows are emptied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.creation import BaseDatabaseCreation
from django.test import TransactionTestCase

from testproject.databases import copy_tables

#: How a database is told to look away from its foreign keys, and to look again.
_FOREIGN_KEYS = {
    "sqlite": ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON"),
    "postgresql": ("SET session_replication_role = replica", "SET session_replication_role = origin"),
    "mysql": ("SET foreign_key_checks = 0", "SET foreign_key_checks = 1"),
}
#: Tables that ``migrate`` fills. They stay as they are.
_FILLED = ("django_content_type", "auth_permission")


#: PostgreSQL deletes fewer rows faster than it truncates a table.
MANY = 2000


@contextmanager
def declared(*models: Any, using: Sequence[str] = (DEFAULT_DB_ALIAS,)) -> Iterator[None]:
    """Create the tables of ``models``, which a test declares in the app ``shapes``; forget both after the block."""
    from django.apps import apps

    for alias in using:
        with connections[alias].schema_editor() as editor:
            for model in models:
                editor.create_model(model)
    try:
        yield
    finally:
        for alias in using:
            with connections[alias].schema_editor() as editor:
                for model in reversed(models):
                    editor.delete_model(model)
            connections[alias].__dict__.pop("_tables_of_tests", None)
        for model in models:
            apps.all_models["shapes"].pop(model._meta.model_name)
        apps.clear_cache()


def tables_of(connection: Any) -> list[str]:
    """Return the tables of the models; they change only in ``declared``."""
    names: list[str] | None = getattr(connection, "_tables_of_tests", None)
    if names is None:
        names = sorted(connection.introspection.django_table_names(only_existing=True, include_views=False))
        connection._tables_of_tests = names
    return names


def empty(connection: Any, tables: Iterable[str]) -> None:
    """Delete the rows of ``tables``; no statement is sent for a table without rows."""
    quoted = [connection.ops.quote_name(table) for table in tables]
    with connection.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"EXISTS (SELECT 1 FROM {table})" for table in quoted))
        filled = [table for table, has_rows in zip(quoted, cursor.fetchone(), strict=True) if has_rows]
        if not filled:
            return
        if connection.vendor == "postgresql":
            cursor.execute("SELECT " + ", ".join(f"EXISTS (SELECT 1 FROM {table} OFFSET {MANY})" for table in filled))
            if any(cursor.fetchone()):
                # What refers to these tables is emptied as well: it would refer to nothing.
                cursor.execute(f"TRUNCATE {', '.join(filled)} CASCADE")
                return
        switch_off, switch_on = _FOREIGN_KEYS[connection.vendor]
        cursor.execute(switch_off)
        with transaction.atomic(using=connection.alias):
            for table in filled:
                cursor.execute(f"DELETE FROM {table}")
        cursor.execute(switch_on)


def _filled_by_migrate(connection: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT count(*), max(id) FROM {table}" for table in _FILLED))
        return list(cursor.fetchall())


@contextmanager
def cheap_databases() -> Iterator[None]:
    """Make the test databases by copying one, and empty them by deleting what is there."""
    usual_create, usual_teardown = BaseDatabaseCreation.create_test_db, TransactionTestCase._fixture_teardown
    after_migrate: dict[str, list[tuple[Any, ...]]] = {}

    def create(creation: Any, *arguments: Any, **options: Any) -> str:
        default, connection = connections[DEFAULT_DB_ALIAS], creation.connection
        if connection.alias == DEFAULT_DB_ALIAS or connection.vendor != default.vendor:
            name: str = usual_create(creation, *arguments, **options)
        else:
            name = _copy(default, connection)
        after_migrate[connection.alias] = _filled_by_migrate(connection)
        return name

    def teardown(case: TransactionTestCase) -> None:
        names = case._databases_names(include_mirrors=False)
        if any(_filled_by_migrate(connections[name]) != after_migrate[name] for name in names):
            usual_teardown(case)
            after_migrate.update({name: _filled_by_migrate(connections[name]) for name in names})
            return
        for name in names:
            empty(connections[name], [table for table in tables_of(connections[name]) if table not in _FILLED])

    with (
        mock.patch.object(BaseDatabaseCreation, "create_test_db", create),
        mock.patch.object(TransactionTestCase, "_fixture_teardown", teardown),
    ):
        yield


def _copy(default: Any, connection: Any) -> str:
    """Make the test database of ``connection`` as a copy of that of ``default``, which was migrated."""
    name: str = connection.creation._get_test_db_name()
    if connection.vendor == "postgresql":
        default.close()  # a database that somebody uses is no template
        connection.settings_dict["TEST"]["TEMPLATE"] = default.settings_dict["NAME"]
    connection.creation._create_test_db(verbosity=0, autoclobber=True)
    connection.close()
    settings.DATABASES[connection.alias]["NAME"] = connection.settings_dict["NAME"] = name
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        default.ensure_connection()
        default.connection.backup(connection.connection)
    elif connection.vendor == "mysql":
        with connection.cursor() as cursor:
            copy_tables(cursor, default.settings_dict["NAME"])
    return name
