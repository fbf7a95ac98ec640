"""Declare which part of a model is shared: ``SyncResource``, the class that users subclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from django.db import models, router

if TYPE_CHECKING:
    from .conflicts import Conflict, Decision
    from .models import Peer


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
    #: Whether other nodes may have this node's changes, and whether this node takes changes of other nodes.
    is_source: ClassVar[bool] = True
    is_target: ClassVar[bool] = True

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model

    def queryset_for(self, peer: Peer | None) -> models.QuerySet[Any] | None:
        """Return the rows that ``peer`` may have; ``None`` for all of them.

        ``peer`` is ``None`` for a login that is the user of no peer. A row that leaves the rows of a peer is withdrawn
        there. The row is sent again when it enters them again.
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
    """Return a row of ``model`` that has one of the unique values of ``instance``, ``None`` if there is none."""
    for names in _unique_columns(model):
        values = {name: getattr(instance, name) for name in names}
        if None not in values.values():
            rows: models.QuerySet[Any] = models.QuerySet(model, using=router.db_for_write(model))
            found: models.Model | None = rows.filter(**values).first()
            if found is not None:
                return found
    return None


def _unique_columns(model: type[models.Model]) -> list[list[str]]:
    """Return the columns that are unique, alone or together, without the primary key, which each node has its own."""
    meta = model._meta
    alone = [[field.attname] for field in meta.concrete_fields if field.unique and not field.primary_key]
    together = [*meta.unique_together, *(constraint.fields for constraint in meta.total_unique_constraints)]
    return alone + [[_attname(meta.get_field(name)) for name in names] for names in together]


def _attname(field: Any) -> str:
    return str(field.attname)
