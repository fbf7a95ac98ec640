"""Declare which part of a model is shared: ``SyncResource``, the class that users subclass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from django.db import models, router
from django.db.models.expressions import OrderBy
from django.db.models.lookups import Exact

if TYPE_CHECKING:
    from .conflicts import Conflict, Decision
    from .models import Peer


def camel_case(name: str) -> str:
    """Turn ``credit_limit`` or ``SalesOrder`` into ``creditLimit`` and ``salesOrder``."""
    first, *rest = name.split("_")
    return first[:1].lower() + first[1:] + "".join(word[:1].upper() + word[1:] for word in rest)


def plural(noun: str) -> str:
    """Return the English plural of a regular noun."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


class SyncResource:
    """Declare which fields of a model travel, and under which names; subclass it and ``register`` it.

    Every attribute has a default. The engine reads no other attribute than these, so a subclass may have others.
    """

    #: The kind in the URL; default: the plural of the model's name, lowerCamelCase.
    path: ClassVar[str] = ""
    #: The payload's element; default: the model's name, lowerCamelCase.
    element: ClassVar[str] = ""
    #: The contract's namespace.
    namespace: str = "http://schemas.sage.com/myContract"
    #: Names of model fields; default: every concrete field but a primary key that the database generates.
    fields: ClassVar[Sequence[str] | None] = None
    #: Names of model fields that do not travel; only without ``fields``.
    exclude: ClassVar[Sequence[str]] = ()
    #: 1 to 9, the lower number wins a conflict; default: the setting's.
    conflict_priority: ClassVar[int | None] = None
    #: Kinds with a lower number are synchronised first; default: after what its foreign keys point to.
    order: ClassVar[int | None] = None
    #: Names in the payload other than the usual ones, by the name of the model's field.
    field_names: ClassVar[Mapping[str, str]] = {}
    #: Rows that travel inside this one, by the name of their list: ``{"orderLines": SalesOrderLineSync}``.
    children: ClassVar[Mapping[str, type[SyncResource]]] = {}
    #: Of a child: its model. For other resources ``register`` sets it.
    model: type[models.Model]
    #: Of a child: the name of its foreign key to the parent; default: the only one there is.
    parent: ClassVar[str] = ""
    #: What happens to a received row with a unique value that another row has: the entry is deferred (``"defer"``),
    #: or both rows become one resource (``"link"``).
    on_duplicate: ClassVar[Literal["defer", "link"]] = "defer"
    #: How ``sync_link`` matches rows of two nodes: names of fields whose values must all be equal without case, or a
    #: function that compares the values of two rows and returns a score from 0.0 to 1.0.
    match_on: ClassVar[Sequence[str] | Callable[[Mapping[str, Any], Mapping[str, Any]], float] | None] = None
    #: Whether received rows are validated with ``full_clean()``; an entry that fails is deferred. Without it the types,
    #: constraints and triggers of the database decide.
    validate: ClassVar[bool] = False
    #: Whether the nodes have one storage, so that the path of a ``FileField`` names the same file at each of them.
    has_shared_files: ClassVar[bool] = False
    #: Whether a peer with a part of the rows (``queryset_for``) may move a row into its part or out of it.
    may_move: ClassVar[bool] = False
    #: Whether other nodes may have this node's changes, and whether this node takes changes of other nodes.
    is_source: ClassVar[bool] = True
    is_target: ClassVar[bool] = True

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model

    def queryset_for(self, peer: Peer | None) -> models.QuerySet[Any] | None:
        """Return the rows that ``peer`` may have; ``None`` for all of them.

        ``peer`` is ``None`` for a login that is the user of no peer. A row that leaves the rows of a peer is withdrawn
        there. The row is sent again when it enters them again. What the peer writes is bound in the same way: see
        ``may_move``.
        """
        return None

    def resolve(self, conflict: Conflict) -> Decision:
        """Decide a conflict (SData sync 5.4) in another way than the rules of the protocol do.

        Return ``"local"`` or ``"remote"``, or a mapping of column names to values: a merged version, which is written
        over the local one. ``None`` leaves the decision to the rules. A decision that differs from the rules is
        recorded as a change of this node, so that the other nodes learn it. The method is called in the transaction of
        the page and must not write.
        """
        return None

    def find_duplicate(self, instance: models.Model) -> models.Model | None:
        """Return the row that is the same thing as ``instance``, which was received and is not saved yet, or ``None``.

        By default, with ``on_duplicate = "link"``, it is the row that has one of the unique values of ``instance``.
        """
        return find_by_unique_values(self.model, instance) if self.on_duplicate == "link" else None


def find_by_unique_values(model: type[models.Model], instance: models.Model) -> models.Model | None:
    """Return a row of ``model`` that has one of the unique values of ``instance``, ``None`` if there is none.

    All unique fields, ``unique_together`` and unique constraints count, also those with expressions, with a condition
    and with ``nulls_distinct=False``. The primary key does not count, because each node has its own.
    """
    every: models.QuerySet[Any] = models.QuerySet(model, using=router.db_for_write(model))
    values = {f.name: models.Value(getattr(instance, f.attname), f) for f in model._meta.concrete_fields}
    for constraint in _unique_constraints(model):
        rows = _rows_in_conflict(every, constraint, values)
        found: models.Model | None = None if rows is None else rows.first()
        if found is not None:
            return found
    return None


def _unique_constraints(model: type[models.Model]) -> Iterator[models.UniqueConstraint]:
    meta = model._meta
    for field in meta.concrete_fields:
        if field.unique and not field.primary_key:
            yield models.UniqueConstraint(fields=[field.name], name=field.name)
    for names in meta.unique_together:
        yield models.UniqueConstraint(fields=names, name="_".join(names))
    for owner in (model, *meta.get_parent_list()):
        for constraint in owner._meta.constraints:
            if isinstance(constraint, models.UniqueConstraint):
                yield constraint


def _rows_in_conflict(
    rows: models.QuerySet[Any], constraint: models.UniqueConstraint, values: Mapping[str, models.Value]
) -> models.QuerySet[Any] | None:
    """Return those of ``rows`` that violate ``constraint`` together with a row that has ``values`` by field.

    Return ``None`` if the constraint does not concern that row.
    """
    if constraint.condition is not None:
        if not constraint.condition.check(dict(values), using=rows.db):
            return None
        rows = rows.filter(constraint.condition)
    for name in constraint.fields:
        value = values[name].value
        if value is None and constraint.nulls_distinct is not False:
            return None
        rows = rows.filter(**{f"{name}__isnull": True} if value is None else {f"{name}__exact": value})
    replacements = {models.F(name): value for name, value in values.items()}
    for expression in constraint.expressions:
        plain: Any = expression.get_expression_for_validation() if isinstance(expression, OrderBy) else expression
        rows = rows.filter(Exact(plain, plain.replace_expressions(replacements)))
    return rows
