"""Compile statements of the ORM once, and execute them many times.

Building and compiling a queryset costs several times what the database takes to answer it. The few statements that run
for every single change are compiled by the ORM at their first use. After that they are only executed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql import UpdateQuery

from ...turns import write_turn

M = TypeVar("M", bound=models.Model)


def can_prepare(field: models.Field[Any, Any]) -> bool:
    """Return True if a value of ``field`` can be an argument of a prepared statement."""
    return isinstance(field, models.IntegerField | models.UUIDField | models.CharField | models.TextField)


def _stand_in(kind: Any, position: int) -> Any:
    """Return a placeholder for an argument while the statement is compiled: a value that no statement contains."""
    if kind is int or isinstance(kind, models.IntegerField):
        return -(2**62) - position
    if isinstance(kind, models.UUIDField):
        return UUID(int=(0x5DA7A << 100) + position)
    return f"\ue000stand-in {position}\ue000"


def _is_stand_in(value: Any, known: dict[Any, int]) -> bool:
    # A parameter of another type may not be hashable.
    return isinstance(value, int | str | UUID) and value in known


def _as_parameter(kind: Any, connection: BaseDatabaseWrapper, value: Any) -> Any:
    return kind.get_db_prep_value(value, connection) if isinstance(kind, models.Field) else value


@dataclass(frozen=True)
class _Compiled:
    sql: str
    params: tuple[Any, ...]
    places: tuple[tuple[int, int], ...]  # position in params, position in the arguments
    converters: tuple[tuple[int, Sequence[Any], Any], ...] = ()


class _Prepared:
    def __init__(self, *kinds: Any) -> None:
        self._kinds = kinds
        self._fields = [(position, kind) for position, kind in enumerate(kinds) if isinstance(kind, models.Field)]
        self._compiled: dict[str, _Compiled] = {}

    def _compile(self, using: str, stand_ins: list[Any]) -> _Compiled:
        raise NotImplementedError

    def _statement(self, using: str) -> _Compiled:
        compiled = self._compiled.get(using)
        if compiled is None:
            stand_ins = [_stand_in(kind, position) for position, kind in enumerate(self._kinds)]
            compiled = self._compiled[using] = self._compile(using, stand_ins)
        return compiled

    def _places(self, using: str, params: Sequence[Any], stand_ins: list[Any]) -> tuple[tuple[int, int], ...]:
        connection = connections[using]
        known = {
            _as_parameter(kind, connection, value): position
            for position, (kind, value) in enumerate(zip(self._kinds, stand_ins, strict=True))
        }
        places = tuple((place, known[value]) for place, value in enumerate(params) if _is_stand_in(value, known))
        if {argument for _, argument in places} != set(range(len(known))):
            raise AssertionError(f"The statement does not use each of its {len(known)} arguments.")
        return places

    def _bind(self, compiled: _Compiled, connection: BaseDatabaseWrapper, arguments: Sequence[Any]) -> list[Any]:
        if self._fields:
            arguments = list(arguments)
            for position, field in self._fields:
                arguments[position] = field.get_db_prep_value(arguments[position], connection)
        bound = list(compiled.params)
        for place, argument in compiled.places:
            bound[place] = arguments[argument]
        return bound


class PreparedQuery(_Prepared, Generic[M]):
    """Execute a queryset with arguments that is compiled once per database.

    ``build`` returns the queryset for the arguments. ``kinds`` are the types of the arguments: ``str``, ``int``, or the
    model field that the argument is compared with. Without ``values_list`` the queryset must select exactly the columns
    of its model.
    """

    def __init__(self, build: Callable[..., models.QuerySet[M, Any]], *kinds: Any) -> None:
        super().__init__(*kinds)
        self._build = build

    def rows(self, using: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Return the rows as tuples, converted as the ORM does it."""
        compiled, connection = self._statement(using), connections[using]
        with connection.cursor() as cursor:
            cursor.execute(compiled.sql, self._bind(compiled, connection, arguments))
            found: list[tuple[Any, ...]] = cursor.fetchall()
        if not compiled.converters or not found:
            return found
        converted = [list(row) for row in found]
        for position, converters, expression in compiled.converters:
            for row in converted:
                value = row[position]
                for convert in converters:
                    value = convert(value, expression, connection)
                row[position] = value
        return [tuple(row) for row in converted]

    def instances(self, using: str, model: type[M], *arguments: Any) -> list[M]:
        """Return the rows as instances of ``model``."""
        names = [field.attname for field in model._meta.concrete_fields]
        return [model.from_db(using, names, row) for row in self.rows(using, *arguments)]

    def _compile(self, using: str, stand_ins: list[Any]) -> _Compiled:
        compiler = self._build(*stand_ins).using(using).query.get_compiler(using=using)
        sql, params = compiler.as_sql()
        converters = compiler.get_converters([selected[0] for selected in compiler.select[: compiler.col_count]])
        return _Compiled(
            sql,
            tuple(params),
            self._places(using, params, stand_ins),
            tuple((position, *converters[position]) for position in sorted(converters)),
        )


class PreparedUpdate(_Prepared):
    """Execute an update with arguments in its conditions and its values that is compiled once per database.

    ``build`` returns the queryset and the values by name; ``kinds`` are as for ``PreparedQuery``.
    """

    def __init__(self, build: Callable[..., tuple[models.QuerySet[Any, Any], dict[str, Any]]], *kinds: Any) -> None:
        super().__init__(*kinds)
        self._build = build

    def execute(self, using: str, *arguments: Any) -> int:
        """Update the rows, and return their number."""
        compiled, connection = self._statement(using), connections[using]
        with write_turn(using), connection.cursor() as cursor:
            cursor.execute(compiled.sql, self._bind(compiled, connection, arguments))
            return int(cursor.rowcount)

    def _compile(self, using: str, stand_ins: list[Any]) -> _Compiled:
        queryset, values = self._build(*stand_ins)
        query: Any = queryset.query.chain(UpdateQuery)
        query.add_update_values(values)
        sql, params = query.get_compiler(using=using).as_sql()
        return _Compiled(sql, tuple(params), self._places(using, params, stand_ins))
