"""Define the columns of this app that no field of Django has."""

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class KeyField(models.CharField):  # type: ignore[type-arg]
    """Store a key as text: two keys are equal only if all their characters are.

    Tables of MariaDB and MySQL usually have a collation that ignores case, accents and trailing spaces.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the parameters of the column, with a binary collation on MariaDB and MySQL."""
        parameters: Any = super().db_parameters(connection)
        if connection.vendor == "mysql":
            is_mariadb = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        return parameters
