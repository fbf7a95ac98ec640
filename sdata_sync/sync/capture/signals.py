"""Capture rows that are written through the ORM, with the signals of Django.

Inside a transaction one mark is enough. It is made before the write, because that fixes the order of locks: the tracked
row before the model row. Outside a transaction, Django sends ``post_save`` after the row has been committed. A process
that dies in between must leave a trace, so there the mark is made before the write and again after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections, models, router
from django.db.models import signals

from ...kind import all_rows
from ...registry import registry, resource_registered, resource_unregistered
from ...relations import Association, Reference
from ..content.referrers import Referrer, await_withdrawn, keep_emptied, mark_referrers, referrers_of
from ..log.keys import is_whole, key_text
from ..log.marks import BY_RECEIVER, bind_uuid, mark, mark_tracked, reserve_uuid
from ..log.suppression import (
    add_applied_key,
    is_applied,
    is_applying,
    is_applying_deletions,
    is_withdrawing,
    register_receivers,
)
from ..log.wakeup import wake_after_commit
from .nested import (
    Inside,
    after_child_save,
    associations,
    before_child_delete,
    before_child_save,
    on_association_changed,
    on_through_row_changed,
)

if TYPE_CHECKING:
    from ...kind import Kind

UID = "sdata_sync.capture"
#: Another one, because a model that joins two others may be registered itself.
ASSOCIATION_UID = "sdata_sync.capture.association"


@dataclass(frozen=True)
class _Capture:
    """Hold the reasons why writes of a model are captured."""

    #: The resources whose rows are written with a row of the model.
    direct: tuple[Kind, ...] = ()
    #: The resources whose rows extend a row of the model: child models in multi-table inheritance.
    extended: tuple[Kind, ...] = ()
    #: The resources that contain rows of the model as children.
    inside: tuple[Inside, ...] = ()
    #: The relations that are emptied when a row of the model is deleted.
    referrers: tuple[Referrer, ...] = ()


_captured: dict[type[models.Model], _Capture] = {}
_captured_associations: set[type[models.Model]] = set()


def connect() -> None:
    """Capture the models of the registered resources, and follow later registrations."""
    resource_registered.connect(_reconnect, dispatch_uid=UID)
    resource_unregistered.connect(_reconnect, dispatch_uid=UID)
    _reconnect()


def _reconnect(**kwargs: Any) -> None:
    from django.apps import apps

    wanted = {model: watch for model in apps.get_models(include_auto_created=True) if (watch := _reasons(model))}
    for model in _captured.keys() - wanted.keys():
        for signal, receiver in RECEIVERS:
            signal.disconnect(receiver, sender=model, dispatch_uid=UID)
    # Per model, never for all senders: a receiver for all senders disables the fast delete of all models of a project.
    for model in wanted.keys() - _captured.keys():
        for signal, receiver in RECEIVERS:
            signal.connect(receiver, sender=model, dispatch_uid=UID)
    _captured.clear()
    _captured.update(wanted)
    _reconnect_associations()


def _reasons(model: type[models.Model]) -> _Capture | None:
    direct = tuple(kind for kind in registry if issubclass(model, kind.model))
    extended = tuple(
        kind
        for kind in registry
        if kind not in direct and model._meta.concrete_model in kind.model._meta.get_parent_list()
    )
    inside = tuple(registry.parents_of(model._meta.concrete_model or model))
    referrers = referrers_of(model)
    if not (direct or extended or inside):  # its rows are not sent, but foreign keys may name them by a natural key
        referrers = tuple(referrer for referrer in referrers if isinstance(referrer.relation, Reference | Association))
    if not (direct or extended or inside or referrers):
        return None
    return _Capture(direct, extended, inside, referrers)


def _reconnect_associations() -> None:
    wanted = {relation.through for kind in registry for relation in associations(kind)}
    for through in _captured_associations - wanted:
        for signal, receiver in ASSOCIATION_RECEIVERS:
            signal.disconnect(receiver, sender=through, dispatch_uid=ASSOCIATION_UID)
    for through in wanted - _captured_associations:
        for signal, receiver in ASSOCIATION_RECEIVERS:
            signal.connect(receiver, sender=through, dispatch_uid=ASSOCIATION_UID)
    _captured_associations.clear()
    _captured_associations.update(wanted)


def _key(kind: Kind, instance: models.Model) -> str | None:
    # An instance of a child model has the key of its parent model under the parent's attribute; if it was loaded raw,
    # only under its own.
    pk = kind.model._meta.pk
    value = getattr(instance, pk.attname, None)
    if value is None:
        value = instance.pk
    return key_text(pk, value) if is_whole(value) else None


def _is_elsewhere(sender: type[models.Model], using: str) -> bool:
    """Return True if ``using`` is not the database of the shared rows; other databases have rows of their own."""
    return using != router.db_for_write(sender)


def _before_save(sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    if _is_elsewhere(sender, using):
        return
    in_transaction = connections[using].in_atomic_block
    watch = _captured[sender]
    for kind in watch.direct:
        key = _key(kind, instance)
        if is_applied(kind.name, instance, key):
            continue
        _reserved(instance).pop(kind.name, None)  # of an earlier save that failed
        if key is None:
            if not in_transaction:
                _reserved(instance)[kind.name] = reserve_uuid(using, kind.name)
        elif in_transaction:
            mark(using, kind.name, [key], made_at=_made_at(kind, is_new=instance._state.adding))
            _reserved(instance)[kind.name] = None
            wake_after_commit(kind.name, using)
        else:
            mark(using, kind.name, [key], is_intent=True)
    if instance.pk is not None:
        for kind in watch.extended:
            _mark_extension(kind, instance, using, is_intent=not in_transaction)
    if watch.inside:
        before_child_save(watch.inside, instance, using)


def _made_at(kind: Kind, *, is_new: bool) -> int | None:
    """Return the time of the mark for a row that a receiver makes while a change is applied; ``None`` for now."""
    if not is_new or is_applying() is None:
        return None
    return BY_RECEIVER if kind.may_find_duplicates or kind.brings_keys else None


def _after_save(
    sender: type[models.Model], instance: models.Model, using: str, created: bool = False, **kwargs: Any
) -> None:
    if _is_elsewhere(sender, using):
        return
    watch = _captured[sender]
    for kind in watch.direct:
        key = _key(kind, instance)
        assert key is not None
        reserved = _reserved(instance)
        if kind.name in reserved and reserved[kind.name] is None:
            del reserved[kind.name]  # marked by _before_save in this transaction
            if not created and _made_at(kind, is_new=True) is not None:
                mark(using, kind.name, [key])  # the instance was new, the row was not
            continue
        if is_applied(kind.name, instance, key):
            add_applied_key(kind.name, instance, key)
            continue
        uuid = reserved.pop(kind.name, None)
        if uuid is None:
            mark(using, kind.name, [key], made_at=_made_at(kind, is_new=created))
        else:
            bind_uuid(using, kind.name, uuid, key)
        wake_after_commit(kind.name, using)
    for kind in watch.extended:
        _mark_extension(kind, instance, using)
    if watch.inside:
        after_child_save(watch.inside, instance, using)


def _before_delete(sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    if _is_elsewhere(sender, using):
        return
    # One mark is enough: Django's collector has always opened a transaction here.
    watch = _captured[sender]
    for kind in watch.direct:
        key = _key(kind, instance)
        if key is not None and not is_applied(kind.name, instance, key):
            if is_withdrawing():
                raise models.ProtectedError(f"{kind.name}({key!r}) would be deleted by a withdrawal.", {instance})
            mark(using, kind.name, [key])
            wake_after_commit(kind.name, using)
    for kind in watch.extended:
        _mark_extension(kind, instance, using)
    if watch.inside:
        before_child_delete(watch.inside, instance, using)
    if is_withdrawing():
        await_withdrawn(watch.referrers, instance, using)
    elif is_applying_deletions():
        keep_emptied(watch.referrers, instance, using)
    else:
        mark_referrers(watch.referrers, instance, using)


def _after_add(
    *,
    sender: type[models.Model],
    instance: models.Model,
    action: str,
    reverse: bool,
    model: type[models.Model],
    pk_set: set[Any] | None,
    using: str,
    **kwargs: Any,
) -> None:
    """Mark the rows of a registered ``through`` model that ``add()`` or ``set()`` has inserted in bulk.

    A relation that is no ``ManyToManyField``, such as ``TaggableManager``, saves its rows with their own signals.
    """
    if action != "post_add" or not pk_set or _is_elsewhere(sender, using):
        return
    owner = model if reverse else type(instance)
    relations: Any = owner._meta.many_to_many
    fields = [
        field
        for field in relations
        if isinstance(field, models.ManyToManyField) and field.remote_field.through is sender
    ]
    watch = _captured[sender]
    for field in fields:
        ends = (field.m2m_reverse_field_name(), field.m2m_field_name())
        here, there = ends if reverse else reversed(ends)
        rows = all_rows(sender, using).filter(**{here: instance.pk, f"{there}__in": pk_set})
        for kind in watch.direct:
            keys = [key for row in rows if (key := _key(kind, row)) and not is_applied(kind.name, None, key)]
            if keys:
                mark(using, kind.name, keys)
                wake_after_commit(kind.name, using)
        if watch.inside:
            for row in rows:
                after_child_save(watch.inside, row, using)


def _mark_extension(kind: Kind, instance: models.Model, using: str, *, is_intent: bool = False) -> None:
    key = key_text(kind.model._meta.pk, instance.pk)
    if not is_applied(kind.name, instance, key):
        mark_tracked(using, kind.name, [key], is_intent=is_intent)
        if not is_intent:
            wake_after_commit(kind.name, using)


def _reserved(instance: models.Model) -> dict[str, UUID | None]:
    """Return what ``_before_save`` leaves for ``_after_save``, by kind.

    That is the uuid of a placeholder, or ``None`` if the resource is marked already.
    """
    state: dict[str, Any] = instance._state.__dict__
    reserved: dict[str, UUID | None] = state.setdefault("sdata_sync_births", {})
    return reserved


RECEIVERS: tuple[tuple[Any, Any], ...] = (
    (signals.pre_save, _before_save),
    (signals.post_save, _after_save),
    (signals.pre_delete, _before_delete),
    (signals.m2m_changed, _after_add),
)
register_receivers(receiver for _, receiver in RECEIVERS)
ASSOCIATION_RECEIVERS = (
    (signals.m2m_changed, on_association_changed),
    (signals.post_save, on_through_row_changed),
    (signals.post_delete, on_through_row_changed),
)
register_receivers(receiver for _, receiver in ASSOCIATION_RECEIVERS)
