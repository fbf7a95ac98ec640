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

from ...exceptions import PayloadError
from ...kind import Kind, all_rows
from ...relations import Reference
from ..db.faults import describe, ends_page
from ..db.isolation import check_deferred_constraints, is_careful, refusal, row_guard
from ..log.suppression import applying, applying_deletions, is_own_receiver, withdrawing
from .cascade import applying_waiting, are_kept_referring, confirm_taken, hold_back, hold_back_children, prepare_records
from .contents import contents_of
from .nested_writer import write_inside
from .resolve import RowAction
from .rows import read_rows

if TYPE_CHECKING:
    from ...atom.payload import Text
    from .resolve import RowChange

logger = logging.getLogger(__name__)


def write_rows(kind: Kind, changes: Sequence[RowChange]) -> None:
    """Write ``changes``, each completely or not at all; set ``error`` on the changes that fail.

    The model validates each row. Rows are saved one by one if the model has a ``save`` method of its own, receivers of
    the application, or columns that a save fills (``auto_now``). All others are written in bulk.
    """
    deletions = [change for change in changes if change.is_deletion]
    writes = [change for change in changes if not change.is_deletion and change.error is None]
    bulk = _can_write_in_bulk(kind)
    if bulk:
        for change in writes:
            _validate(kind, change, whole=False)
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
    pk = change.instance.pk
    with applying_waiting(change):
        change.instance.delete(using=kind.database)
    change.instance.pk = pk
    if are_kept_referring(kind, [change.instance]):  # checked now: at the commit the violation would fail the page
        raise PayloadError("IntegrityError: rows with on_delete=DO_NOTHING still refer to the row.", public="Refused.")
    confirm_taken(records)


def _can_write_in_bulk(kind: Kind) -> bool:
    model = kind.model
    return (
        # A save fills such a column, whether the column is synchronised or not.
        not any(getattr(field, "auto_now", False) for field in model._meta.concrete_fields)
        and model.save is models.Model.save
        and model.save_base is models.Model.save_base
        and not model._meta.parents
        and not _self_written(kind)
        and connections[kind.database].features.supports_update_conflicts_with_target
        and not any(_has_foreign_receivers(signal, model) for signal in (signals.pre_save, signals.post_save))
    )


def _has_foreign_receivers(signal: Any, model: type[models.Model]) -> bool:
    # Signal.has_listeners() would also return True for the receivers of this app.
    live = signal._live_receivers(model)
    return any(not is_own_receiver(receiver) for group in live for receiver in group)


def _self_written(kind: Kind) -> list[str]:
    """Return the columns in which a save would replace the received value by the present time."""
    return [
        prop.field.attname
        for prop in kind.properties
        if getattr(prop.field, "auto_now", False) or getattr(prop.field, "auto_now_add", False)
    ]


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
        change.error = _payload_error(kind, error)
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


def _payload_error(kind: Kind, error: ValidationError) -> PayloadError:
    if not hasattr(error, "error_dict"):
        return PayloadError("; ".join(error.messages))
    fields = error.message_dict
    text = "; ".join(f"{name}: {' '.join(messages)}" for name, messages in fields.items())
    return PayloadError(text, payload_path=_payload_path(kind, next(iter(fields))))


def _payload_path(kind: Kind, name: str) -> str:
    names = [prop.name for prop in kind.properties if prop.field.name == name]
    names += [r.name for r in kind.relations if isinstance(r, Reference) and r.field.name == name]
    return f"{kind.element_name}/{next(iter(names), name)}"


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
            write_inside(kind, changes, write_rows)
            _set_texts(kind, changes)
            _check_now(kind)
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


def _set_texts(kind: Kind, changes: list[RowChange]) -> None:
    if _is_fragile(kind) or kind.child_lists:
        contents = _stored_contents(kind, changes)
        for change in changes:
            change.texts = contents[str(change.instance.pk)]
            _expect_unaltered(kind, change)
    elif kind.relations:
        # The written values; the targets of the references are looked up together.
        contents = _contents(kind, changes, {str(c.instance.pk): kind.values_of(c.instance) for c in changes})
        for change in changes:
            change.texts = contents[str(change.instance.pk)]
    else:
        for change in changes:
            change.texts = kind.encode_instance(change.instance)


def _stored_contents(kind: Kind, changes: Sequence[RowChange]) -> dict[str, list[Text]]:
    return _contents(kind, changes, read_rows(kind, [str(change.instance.pk) for change in changes]))


def _contents(kind: Kind, changes: Sequence[RowChange], rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Text]]:
    pending = {str(change.instance.pk): change.pending for change in changes if change.pending}
    return contents_of(kind, rows, pending, allocate=True)


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
    if kind.model.delete is not models.Model.delete:
        return False
    if not changes:
        return True
    if is_careful():
        return False
    keys = [change.instance.pk for change in changes]
    try:
        with transaction.atomic(using=kind.database), applying(kind.name, keys=map(str, keys)):
            kind.rows().filter(pk__in=keys).delete()
    except Exception as error:
        if ends_page(error):
            raise
        logger.info("%s: deleted row by row, because the bulk deletion failed: %s", kind.name, describe(error))
        return False
    return True


def _attempt(kind: Kind, change: RowChange, act: Any) -> None:
    key = change.instance.pk
    keys = [] if key is None else [str(key)]
    try:
        with (
            row_guard(kind.database),
            applying(kind.name, keys=keys, instances=(change.instance,)),
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
    database = kind.database
    brought = {name: getattr(change.instance, name) for name in change.names}
    _validate(kind, change, whole=True)
    if change.error is not None:
        raise change.error
    before = _linked_values(kind, [change])
    change.instance.save(using=database, force_insert=change.is_new)
    _take_along(kind, before, [change])
    kept = {name: brought[name] for name in _self_written(kind) if name in brought}
    if kept:
        kind.rows().filter(pk=change.instance.pk).update(**kept)
    write_inside(kind, [change], write_rows)
    texts = _stored_contents(kind, [change]).get(str(change.instance.pk))
    if texts is None:
        raise PayloadError("The save() of the model did not write the row.")
    change.texts = texts
    if _can_write_in_bulk(kind):
        _expect_unaltered(kind, change)


def _is_fragile(kind: Kind) -> bool:
    """Return True if a database may store another number than it was given: SQLite stores decimals as floats."""
    return any(
        isinstance(prop.field, models.FloatField)
        or (isinstance(prop.field, models.DecimalField) and (prop.field.max_digits or 99) > 15)
        for prop in kind.properties
    )


def _expect_unaltered(kind: Kind, change: RowChange) -> None:
    """Compare the stored row of a model without own ``save`` with the values that were written.

    Raises:
        PayloadError: a value in the database differs from the value that was written.
    """
    for prop, written, stands in zip(kind.properties, kind.encode_instance(change.instance), change.texts):  # noqa: B905
        if written != stands:
            raise PayloadError(
                f"The database cannot hold the value {(written or '')[:80]!r} of {prop.name}.",
                payload_path=f"{kind.element_name}/{prop.name}",
            )
