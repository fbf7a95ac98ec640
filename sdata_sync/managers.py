"""Capture bulk writes, for which Django sends no signals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from django.db import models

from .kind import all_rows
from .registry import registry
from .sync.capture.nested import mark_parents
from .sync.db.statements import chunks
from .sync.log.keys import key_text
from .sync.log.marks import mark, mark_tracked
from .sync.log.suppression import is_applied
from .sync.log.wakeup import wake_after_commit
from .turns import write_transaction

#: The number of keys in one statement; every supported database accepts as many parameters.
KEYS_PER_STATEMENT = 10_000

M = TypeVar("M", bound=models.Model, covariant=True)


class SyncQuerySet(models.QuerySet[M]):
    """Capture the changes of ``bulk_create``, ``bulk_update`` and ``update``, in one transaction each.

    Rows that ``bulk_create`` leaves without a primary key, as with ``ignore_conflicts``, cannot be captured;
    ``sync_scan`` finds them.
    """

    #: True on a queryset whose rows are marked already, and on querysets derived from it.
    _is_marked = False

    def _clone(self) -> Any:
        clone = super()._clone()  # type: ignore[misc]
        clone._is_marked = self._is_marked
        return clone

    def _mark(self, values: Iterable[Any]) -> None:
        keys = [value for value in values if value is not None]
        for kind in registry:
            direct = issubclass(self.model, kind.model)
            if self.db != kind.database:
                continue
            if not direct and self.model._meta.concrete_model not in kind.model._meta.get_parent_list():
                continue
            spelled = (key_text(kind.model._meta.pk, key) for key in keys)
            wanted = [key for key in spelled if not is_applied(kind.name, None, key)]
            if direct:
                mark(self.db, kind.name, wanted)
            else:
                mark_tracked(self.db, kind.name, wanted)
            wake_after_commit(kind.name, self.db)
        self._mark_parents(keys)

    def bulk_create(self, objs: Iterable[M], *args: Any, **kwargs: Any) -> list[M]:
        """Create rows in bulk and capture them."""
        self._for_write = True
        with write_transaction(self.db):
            created = super().bulk_create(objs, *args, **kwargs)
            self._mark([instance.pk for instance in created])
        return created

    def bulk_update(self, objs: Iterable[M], *args: Any, **kwargs: Any) -> int:
        """Update rows in bulk and capture them; the marks are written before the rows, as with every write."""
        objs = tuple(objs)
        self._for_write = True
        with write_transaction(self.db):
            self._mark([instance.pk for instance in objs])
            marked = self._chain()  # type: ignore[attr-defined]
            marked._is_marked = True
            updated = int(super(SyncQuerySet, marked).bulk_update(objs, *args, **kwargs))
            self._mark_parents([instance.pk for instance in objs])  # also the parents to which children were moved
        return updated

    def update(self, **kwargs: Any) -> int:
        """Update rows and capture exactly the updated rows."""
        if self._is_marked:
            return super().update(**kwargs)
        self._for_write = True
        with write_transaction(self.db):
            keys = list(self.order_by().values_list("pk", flat=True))
            self._mark(keys)
            # A row that matches only since the keys were read is not marked, so it is not updated.
            updated = 0
            for part in chunks(keys, KEYS_PER_STATEMENT):
                marked = self.filter(pk__in=part)
                marked._is_marked = True
                updated += super(SyncQuerySet, marked).update(**kwargs)
            self._mark_parents(keys)  # also the parents to which children were moved
        self._result_cache = None
        return updated

    def _mark_parents(self, keys: list[Any]) -> None:
        """Mark the parents of the child rows ``keys`` as changed."""
        for kind, children in registry.parents_of(self.model._meta.concrete_model or self.model):
            for part in chunks(keys, KEYS_PER_STATEMENT):
                rows = all_rows(self.model, self.db).filter(pk__in=part)
                mark_parents(kind, children, rows.values_list(children.link.attname, flat=True), self.db)

    update.alters_data = True  # type: ignore[attr-defined]


class SyncManager(models.Manager.from_queryset(SyncQuerySet)):  # type: ignore[misc]
    """Provide querysets that capture bulk writes."""
