"""Write and delete the rows of a kind's model, in bulk where the result is the same as row by row."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.db import connections, models, transaction
from django.db.models import signals

from ....exceptions import OutOfPart, PayloadError
from ....kind import Kind, all_rows
from ....relations import Reference
from ...db.faults import describe, ends_page
from ...db.isolation import check_deferred_constraints, is_careful, refusal, row_guard
from ...log.suppression import applying, applying_deletions, is_own_receiver, withdrawing
from ..boundary import check_deletions, leaves_part
from ..cascade import (
    applying_waiting,
    are_kept_referring,
    confirm_taken,
    hold_back,
    hold_back_children,
    prepare_records,
)
from ..contents import contents_of
from ..resolve import RowAction
from .columns import alters_rows, payload_error, save_row, settle
from .nested import write_inside
from .parents import applying_to_parents, take_parents

if TYPE_CHECKING:
    from ....atom.payload import Text
    from ..resolve import RowChange

logger = logging.getLogger(__name__)


def write_rows(kind: Kind, changes: Sequence[RowChange]) -> None:
    """Write ``changes``, each completely or not at all; set ``error`` on the changes that fail.

    Rows are saved one by one if the model has a ``save`` method of its own, receivers of the application, or columns
    that a save fills (``auto_now``). All others are written in bulk. After either, the stored columns are compared with
    the received values where they may differ, and set to them.
    """
    deletions = [change for change in changes if change.is_deletion]
    writes = [change for change in changes if not change.is_deletion and change.error is None]
    bulk = _can_write_in_bulk(kind)
    if bulk:
        for change in writes:
            _check(kind, change, whole=False)
        writes = [change for change in writes if change.error is None]
    if not (bulk and _write_in_bulk(kind, writes)):
        for change in writes:
            _attempt(kind, change, lambda change: _save(kind, change))
    _delete_rows(kind, [change for change in deletions if change.action is RowAction.DELETE])
    with withdrawing():
        _delete_in_turn(kind, [change for change in deletions if change.action is RowAction.WITHDRAW])


def _delete_rows(kind: Kind, deletions: Sequence[RowChange]) -> None:
    """Apply received deletions, except those that wait because they would delete other rows as well."""
    if not deletions:
        return
    check_deletions(kind, deletions)
    if kind.is_inside:
        hold_back_children(kind, deletions)
    else:
        hold_back(kind, deletions)
    with applying_deletions():
        _delete_in_turn(kind, [change for change in deletions if not change.error])


def _delete_in_turn(kind: Kind, deletions: list[RowChange]) -> None:
    is_refusable = are_kept_referring(kind, [change.instance for change in deletions])
    if any(change.taken for change in deletions) or is_refusable or not _delete_in_bulk(kind, deletions):
        for change in deletions:
            _attempt(kind, change, lambda change: _delete(kind, change))


def _delete(kind: Kind, change: RowChange) -> None:
    records = prepare_records(kind, change)
    with applying_waiting(change):
        delete_row(kind, change.instance)
    if are_kept_referring(kind, [change.instance]):  # checked now: at the commit the violation would fail the page
        raise PayloadError("IntegrityError: rows with on_delete=DO_NOTHING still refer to the row.", public="Refused.")
    confirm_taken(records)


def delete_row(kind: Kind, instance: models.Model) -> None:
    """Delete the row by the model's ``delete()``; the instance keeps its primary key.

    The row of a registered parent stays: it has an entry of its own. If ``delete()`` only hides the row, it is deleted
    all the same: a row that stays would be found as a new one, although it was deleted at its origin.
    """
    pk = instance.pk
    options = {"keep_parents": True} if kind.registered_parents else {}
    with applying_to_parents(kind, instance):
        instance.delete(using=kind.database, **options)
        instance.pk = pk
        if kind.model.delete is not models.Model.delete and kind.rows().filter(pk=pk).exists():
            models.Model.delete(instance, using=kind.database, **options)
            instance.pk = pk


def _can_write_in_bulk(kind: Kind) -> bool:
    model = kind.model
    return (
        # A save fills such a column, whether the column is synchronised or not.
        not any(getattr(field, "auto_now", False) for field in model._meta.concrete_fields)
        and model.save is models.Model.save
        and model.save_base is models.Model.save_base
        and not model._meta.parents
        and connections[kind.database].features.supports_update_conflicts_with_target
        and not any(_has_foreign_receivers(signal, model) for signal in (signals.pre_save, signals.post_save))
    )


def _has_foreign_receivers(signal: Any, model: type[models.Model]) -> bool:
    # Signal.has_listeners() would also return True for the receivers of this app.
    live = signal._live_receivers(model)
    return any(not is_own_receiver(receiver) for group in live for receiver in group)


def _check(kind: Kind, change: RowChange, *, whole: bool) -> None:
    """Set ``error`` on a change that lacks a needed value or does not pass the validation that the resource wants."""
    _check_new(kind, change)
    if kind.declared.validate and change.error is None:
        _validate(kind, change, whole=whole)


def _check_new(kind: Kind, change: RowChange) -> None:
    """Refuse a new row without a value that its column needs: an entry may contain only some of the properties."""
    if not change.is_new:
        return
    for prop in kind.properties:
        field = prop.field
        has_other = field.has_default() or field.null or field.has_db_default() or getattr(field, "auto_now", False)
        if not (field.attname in change.values or has_other or field.blank or field.primary_key):
            change.error = PayloadError(
                f"A new row needs {prop.name}, which the entry does not have.",
                payload_path=f"{kind.element_name}/{prop.name}",
            )
            return


def _validate(kind: Kind, change: RowChange, *, whole: bool) -> None:
    instance = change.instance
    exclude = set(_unchecked(kind, change.names, change.is_new))
    exclude.update(_not_validated(kind, instance))
    if not whole:
        exclude.update(_plainly_right(kind, instance))
    try:
        if whole:
            instance.full_clean(exclude=exclude)
        else:
            # The database checks uniqueness here. A row that it refuses is validated completely when it is saved alone.
            instance.clean_fields(exclude=exclude)
            if type(instance).clean is not models.Model.clean:
                instance.clean()
    except ValidationError as error:
        change.error = payload_error(kind, error)
    except Exception as error:  # the clean() of a model may raise any exception
        if ends_page(error):
            raise
        change.error = refusal(error)


def _not_validated(kind: Kind, instance: models.Model) -> Iterator[str]:
    """Yield the names of the fields whose value is not validated: the JSON null, and null in nullable columns."""
    values = instance.__dict__
    for name, attname in _json_columns(kind.model):
        if isinstance(values.get(attname), models.Value):
            yield name
    for name, attname in _nullable(kind.model):
        # Model validation refuses an empty value of a field without blank=True; the column allows NULL.
        if values.get(attname) is None:
            yield name


def _plainly_right(kind: Kind, instance: models.Model) -> Iterator[str]:
    """Yield the names of the fields whose values are valid by a check that is ten times as fast as ``clean``."""
    values = instance.__dict__
    for name, attname, limit in _plain_texts(kind.model):
        if type(value := values.get(attname)) is str and 0 < len(value) <= limit:
            yield name
    for relation in kind.relations:
        # The targets of a page were looked up together; clean() would look up each target again.
        if isinstance(relation, Reference) and values.get(relation.field.attname) is not None:
            yield relation.field.name


@lru_cache(maxsize=512)
def _unchecked(kind: Kind, names: frozenset[str], is_new: bool) -> frozenset[str]:
    """Return the names of the fields that are not validated, because an entry with the columns ``names`` lacks them."""
    checked = set(names)
    if is_new:  # a column that a new row has no value for is validated: it may not allow an empty value
        checked.update(prop.field.attname for prop in kind.properties if not prop.field.has_default())
        checked.update(kind.relation_columns)
    return frozenset(field.name for field in kind.model._meta.fields if field.attname not in checked)


@lru_cache(maxsize=512)
def _plain_texts(model: type[models.Model]) -> tuple[tuple[str, str, int], ...]:
    """Return name, column and greatest length of the text fields whose only validation is the length."""
    return tuple(
        (field.name, field.attname, field.max_length or sys.maxsize)
        for field in model._meta.fields
        if type(field) in (models.CharField, models.TextField)
        and not field.choices
        and all(
            type(validator) is MaxLengthValidator and validator.limit_value == field.max_length
            for validator in field.validators
        )
    )


@lru_cache(maxsize=512)
def _json_columns(model: type[models.Model]) -> tuple[tuple[str, str], ...]:
    return tuple((f.name, f.attname) for f in model._meta.fields if isinstance(f, models.JSONField))


@lru_cache(maxsize=512)
def _nullable(model: type[models.Model]) -> tuple[tuple[str, str], ...]:
    return tuple((f.name, f.attname) for f in model._meta.concrete_fields if f.null)


def _write_in_bulk(kind: Kind, changes: list[RowChange]) -> bool:
    """Write all ``changes`` in bulk; if one fails, write none and return False."""
    if len(changes) == 0:
        return True
    if is_careful():
        return False
    groups: dict[frozenset[str], list[models.Model]] = {}
    for change in changes:
        if not change.is_new:
            groups.setdefault(change.names, []).append(change.instance)
    try:
        with transaction.atomic(using=kind.database):
            before = _linked_values(kind, changes)
            kind.rows().bulk_create([change.instance for change in changes if change.is_new])
            for names, instances in groups.items():
                _update_in_bulk(kind, names, instances)
            _take_along(kind, before, changes)
            _set_texts(kind, changes)
            _check_now(kind)
            if leaves_part(changes):
                raise OutOfPart
    except Exception as error:
        if ends_page(error):
            raise
        logger.info("%s: written row by row, because the bulk write failed: %s", kind.name, describe(error))
        for change in changes:
            _forget_key(change)
        return False
    return True


def _check_now(kind: Kind) -> None:
    """Check deferred constraints now: at the end of the transaction a violation would fail the whole page."""
    connection = connections[kind.database]
    if connection.features.supports_deferrable_unique_constraints and any(
        getattr(constraint, "deferrable", None) for constraint in kind.model._meta.constraints
    ):
        connection.check_constraints()


@lru_cache(maxsize=512)
def _links(model: type[models.Model]) -> tuple[models.ForeignKey[Any, Any], ...]:
    """Return the foreign keys of all models that refer to ``model`` by another column than its primary key."""
    incoming: Any = [field for field in model._meta.get_fields(include_hidden=True) if field.auto_created]
    links = [field.field for field in incoming if field.one_to_many or (field.one_to_one and not field.concrete)]
    return tuple(link for link in links if not link.target_field.primary_key)


def _linked_values(kind: Kind, changes: Sequence[RowChange]) -> dict[Any, models.Model]:
    """Return the present values of the rows to update, of the columns that foreign keys refer to."""
    columns = {link.target_field.attname for link in _links(kind.model)}
    pks = [change.instance.pk for change in changes if not change.is_new and columns & change.names]
    return kind.rows().only(*columns).in_bulk(pks) if pks else {}


def _take_along(kind: Kind, before: Mapping[Any, models.Model], changes: Sequence[RowChange]) -> None:
    """Update foreign keys that hold changed values of ``changes``, in one statement, since rows may exchange values."""
    for link in _links(kind.model) if before else ():
        name = link.target_field.attname
        moved = {
            old: new
            for change in changes
            if (row := before.get(change.instance.pk)) is not None
            and (old := getattr(row, name)) != (new := getattr(change.instance, name))
            and old is not None
        }
        if moved:
            cases = [models.When(**{link.attname: old}, then=models.Value(new, link)) for old, new in moved.items()]
            rows = all_rows(link.model, kind.database).filter(**{f"{link.attname}__in": list(moved)})
            rows.update(**{link.attname: models.Case(*cases)})


def _set_texts(kind: Kind, changes: Sequence[RowChange], *, is_saved: bool = False) -> None:
    """Write what is inside the written rows, and set the texts of ``changes`` to their contents.

    Where the stored columns may differ from the received values, they are read and set to them.

    Raises:
        PayloadError: the database holds another value than it was given.
    """
    rows = None
    if is_saved or kind.child_lists or not kind.is_plain or alters_rows(kind):
        rows = settle(kind, changes)
    write_inside(kind, changes, write_rows)
    if rows is None and not kind.relations:
        for change in changes:
            change.texts = kind.encode(kind.values_of(change.instance))
        return
    if rows is None:
        rows = {change.local_key: tuple(kind.values_of(change.instance)) for change in changes}
    contents = _contents(kind, changes, rows)
    for change in changes:
        change.texts = contents[change.local_key]


def _contents(kind: Kind, changes: Sequence[RowChange], rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Text]]:
    pending = {change.local_key: change.pending for change in changes if change.pending}
    own = {change.local_key: change.uuid for change in changes if change.uuid is not None}
    return contents_of(kind, rows, pending, allocate=True, own=own)


def _update_in_bulk(kind: Kind, names: frozenset[str], instances: list[models.Model]) -> None:
    meta = kind.model._meta
    fields = [field.name for field in meta.concrete_fields if field.attname in names and not field.primary_key]
    if fields:
        kind.rows().bulk_create(instances, update_conflicts=True, unique_fields=[meta.pk.name], update_fields=fields)


def _forget_key(change: RowChange) -> None:
    """Remove the primary key of a row whose creation was rolled back, if the database has generated it."""
    if not change.is_new:
        return
    pk = change.instance._meta.pk
    change.instance._state.adding = True
    if getattr(pk, "db_returning", False) and pk.attname not in change.names:
        change.instance.pk = None


def _delete_in_bulk(kind: Kind, changes: list[RowChange]) -> bool:
    if kind.model.delete is not models.Model.delete or kind.registered_parents:
        return False
    if not changes:
        return True
    if is_careful():
        return False
    keys, local_keys = zip(*((change.instance.pk, change.local_key) for change in changes), strict=True)
    try:
        with transaction.atomic(using=kind.database), applying(kind.name, keys=local_keys):
            kind.rows().filter(pk__in=keys).delete()
    except Exception as error:
        if ends_page(error):
            raise
        logger.info("%s: deleted row by row, because the bulk deletion failed: %s", kind.name, describe(error))
        return False
    return True


def _attempt(kind: Kind, change: RowChange, act: Any) -> None:
    key = change.instance.pk
    keys = [] if key is None else [change.local_key]
    try:
        with (
            row_guard(kind.database),
            applying(kind.name, keys=keys, instances=(change.instance,)),
            applying_to_parents(kind, change.instance),
        ):
            act(change)
            _check_now(kind)
            check_deferred_constraints()
    except PayloadError as error:
        if error.__cause__ is not None:
            logger.info("%s: a received change of a row cannot be applied", kind.name, exc_info=error.__cause__)
        change.error = error
    if change.error is not None:
        if change.action is RowAction.WITHDRAW:
            change.error.application_code = PayloadError.WITHDRAWN
        _forget_key(change)


def _save(kind: Kind, change: RowChange) -> None:
    parents = take_parents(kind, change) if kind.registered_parents else {}
    _check(kind, change, whole=True)
    if change.error is not None:
        raise change.error
    before = _linked_values(kind, [change])
    save_row(kind, change, parents)
    _take_along(kind, before, [change])
    _set_texts(kind, [change], is_saved=True)
    if leaves_part([change]):
        raise OutOfPart("The row would not lie in the part of this login.")
