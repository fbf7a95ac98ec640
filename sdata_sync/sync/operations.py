"""Run operations: calls of ``$syncSource`` and ``$syncTarget`` that outlive their request.

See SData core 11.5 and SData sync 5.2, 5.3. An operation is a row with a lease. The process that takes the lease runs
the operation. If a client asks for the progress and the lease has expired, the operation is started again. Running it
twice changes nothing.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

from django.db import OperationalError, connections, router, transaction
from django.db.models import Q, QuerySet

from ..conf import conf
from ..core.state import same_endpoint
from ..core.text import fold
from ..exceptions import DocumentError, FeedError, OperationFailed, TooManyOperations
from ..models import Operation
from ..models.operation import Phase, Role
from ..registry import registry
from ..tracing import span
from .apply.receive import receive_feed
from .apply.results import render_results
from .db.clock import lies_ahead, now
from .db.owner import holder_name, is_gone
from .log.digests import digest_as_json, digest_from_json
from .port import port
from .scope import mark_full, mark_partial, review, scope_for
from .select.feed import SourceFeed, count_missing
from .stamp.restore_gap import wait_until_checked
from .stamp.scan import is_complete, track_existing
from .stamp.stamper import assign_ticks
from .trust import Sender, sender_of_login

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind
    from ..models import Peer
    from .runs import RunLabel

logger = logging.getLogger(__name__)

#: How long an operation may show no progress before another process takes its lease.
SILENCE_MILLIS = 60_000
#: How long an operation waits for a worker before a thread of the asked process runs it.
WAITING_MILLIS = 10_000
#: How long a deleted operation can still be read: some clients delete before they follow ``next``.
DELETED_MILLIS = 60_000
#: How long an operation is stored that no client deletes.
KEPT_MILLIS = 24 * 60 * 60 * 1000
#: How many ended operations of one login are stored.
KEPT_PER_LOGIN = 1000
MAX_TRACKING_ID = 200


def begin(
    kind: Kind,
    role: Role,
    tracking_id: str,
    sender: Sender,
    *,
    run: RunLabel,
    target: Digest | None = None,
    body: BinaryIO | None = None,
) -> Operation:
    """Return the operation of ``sender`` with the ``tracking_id``; create it if there is none.

    So a repeated call of one login starts no second operation. ``target`` is the digest posted to ``$syncSource``,
    ``body`` the feed posted to ``$syncTarget``.

    Raises:
        FeedError: ``tracking_id`` is longer than ``MAX_TRACKING_ID`` characters.
        TooManyOperations: the login has ``MAX_OPERATIONS`` open operations.
    """
    length = max(len(tracking_id), len(fold(tracking_id)))
    if length > MAX_TRACKING_ID:
        raise FeedError(f"Expected a trackingID of {MAX_TRACKING_ID} characters at most, received {length}.")
    _clear_away(sender.login)
    found = find(kind, role, tracking_id, sender)
    if found is not None:
        return found
    _check_number(sender)
    operation, _ = Operation.objects.get_or_create(
        kind=kind.name,
        role=role,
        key=fold(tracking_id),
        login=sender.login,
        defaults={
            "tracking_id": tracking_id,
            "run_name": run.name[:200],
            "run_stamp": run.stamp[:200],
            "target_digest": digest_as_json(target) if target is not None else "",
            "body": None if body is None else body.read(),
            "peer": _peer_of(kind, sender),
            "created_at": now(),
        },
    )
    return operation


def _check_number(sender: Sender) -> None:
    unfinished = Operation.objects.filter(login=sender.login, phase__in=(Phase.WAITING, Phase.RUNNING))
    if unfinished.count() >= conf.max_operations:
        raise TooManyOperations(
            f"Expected at most {conf.max_operations} unfinished operations of one login "
            "(SDATA_SYNC['MAX_OPERATIONS']). Wait until one of them has ended."
        )


def _peer_of(kind: Kind, sender: Sender) -> Peer | None:
    """Return the peer of ``sender``, whose part of a filtered kind is selected."""
    return sender.peer if kind.is_filtered else None


def select_now(kind: Kind, target: Digest, sender: Sender, *, run: RunLabel) -> Operation:
    """Select at once, and return a finished ``$syncSource`` operation that is not stored.

    It need not be stored if its feed has only one page; see ``keep``.
    """
    tracking_id = str(uuid4())
    operation = Operation(
        kind=kind.name,
        role=Role.SOURCE,
        key=tracking_id,
        tracking_id=tracking_id,
        run_name=run.name[:200],
        run_stamp=run.stamp[:200],
        target_digest=digest_as_json(target),
        created_at=now(),
        login=sender.login,
        peer=_peer_of(kind, sender),
    )
    for name, value in _select(kind, operation, lambda done: None).items():
        setattr(operation, name, value)
    return operation


def keep(operation: Operation) -> None:
    """Store an operation that ``select_now`` has returned, so that a client can request its other pages."""
    _clear_away(operation.login)
    operation.save()


def find(kind: Kind, role: Role, tracking_id: str, sender: Sender) -> Operation | None:
    """Return the operation that ``sender`` began with the ``tracking_id``.

    The result is ``None`` if there is none, or its time after deletion is over.
    """
    operations = Operation.objects.filter(kind=kind.name, role=role, login=sender.login)
    operation = operations.filter(key=fold(tracking_id)).first()
    if operation is None or _is_past(operation):
        return None
    return operation


def delete(operation: Operation) -> None:
    """End an operation; it stays readable for ``DELETED_MILLIS``."""
    Operation.objects.filter(pk=operation.pk, deleted_at=0).update(deleted_at=now())


def _is_past(operation: Operation) -> bool:
    return bool(operation.deleted_at) and operation.deleted_at < now() - DELETED_MILLIS


def _clear_away(login: str) -> None:
    """Delete old operations, and of the ended ones of ``login`` all but the latest."""
    old = Q(deleted_at__gt=0, deleted_at__lt=now() - DELETED_MILLIS) | Q(created_at__lt=now() - KEPT_MILLIS)
    Operation.objects.filter(old).delete()
    ended = Operation.objects.filter(login=login, phase__in=(Phase.DONE, Phase.FAILED)).order_by("-created_at")
    outdated = ended.values_list("pk", flat=True)[KEPT_PER_LOGIN : KEPT_PER_LOGIN + 500]
    Operation.objects.filter(pk__in=list(outdated)).delete()


def start_after_commit(operation: Operation) -> None:
    """Start the operation in the delivery backend after the commit, unless a process is running it already.

    If no worker has begun it within ``WAITING_MILLIS``, a thread of this process runs it, because the worker may not be
    running.
    """
    if operation.is_ended:
        return
    if operation.phase == Phase.RUNNING and _is_held(operation):
        return
    is_recent = lies_ahead(operation.created_at + WAITING_MILLIS, WAITING_MILLIS)
    is_overdue = operation.phase == Phase.WAITING and not is_recent
    start = carry_out_in_thread if is_overdue else port().carry_out
    transaction.on_commit(lambda: start(operation.pk), using=router.db_for_write(Operation))


def _is_held(operation: Operation) -> bool:
    return lies_ahead(operation.held_until, SILENCE_MILLIS) and not is_gone(operation.holder)


def carry_out_in_thread(pk: int) -> None:
    """Run the operation with the primary key ``pk`` in a thread of this process."""
    thread = threading.Thread(target=_carry_out_and_close, args=(pk,), name=f"sdata-sync-operation-{pk}", daemon=True)
    thread.start()


def _carry_out_and_close(pk: int) -> None:
    try:
        carry_out(pk)
    except Exception:
        logger.exception("Operation %d was not finished; the next request for it starts it again", pk)
    finally:
        connections.close_all()


def carry_out(pk: int) -> None:
    """Take the lease of the operation and run it to its end; do nothing if another process is running it.

    Raises:
        LookupError: the kind of the operation is not registered any more.
        OperationalError: the database is busy or cannot be reached.
    """
    operation = Operation.objects.filter(pk=pk).first()
    if operation is None:
        return  # a client has deleted it, and its row was removed meanwhile
    held = Operation.objects.filter(pk=pk, holder=operation.holder, held_until=operation.held_until)
    if operation.is_ended or _is_held(operation):
        return
    # A name for this run only, because the same thread may run the same operation a second time.
    holder = f"{holder_name()[:80]}/{uuid4().hex[:12]}"
    if not held.update(phase=Phase.RUNNING, holder=holder, held_until=now() + SILENCE_MILLIS):
        return
    mine = Operation.objects.filter(pk=pk, holder=holder)
    kind = registry.of_kind(operation.kind)
    if kind is None:
        raise LookupError(f"The kind {operation.kind} of the operation is not registered any more.")
    work = _select if operation.role == Role.SOURCE else _apply
    try:
        with span("operation", kind=operation.kind, role=str(operation.role)):
            outcome = work(kind, operation, lambda done: _store_progress(mine, done))
    except (DocumentError, FeedError) as error:
        outcome = _failure(error.status, error.application_code, str(error), getattr(error, "payload_path", ""))
    except OperationalError:
        mine.update(held_until=0)  # the database is busy or cannot be reached: the next request starts it again
        raise
    except Exception:
        logger.exception("Operation %s failed because of an unexpected error", operation)
        outcome = _failure(500, "Failure", "Failed because of an internal error. Nothing was applied.", "")
    mine.update(**outcome, body=None)


def _store_progress(mine: QuerySet[Operation], done: int) -> None:
    mine.update(done=done, held_until=now() + SILENCE_MILLIS)


def _failure(status: int, code: str, message: str, path: str) -> dict[str, object]:
    failure = {"status": status, "application_code": code, "message": message, "payload_path": path}
    return {"phase": Phase.FAILED, "failure": json.dumps(failure)}


def _select(kind: Kind, operation: Operation, note: Callable[[int], None]) -> dict[str, object]:
    wait_until_checked(kind)
    if not is_complete(kind):
        Operation.objects.filter(pk=operation.pk).update(total=kind.rows().count())
    looked_at = 0

    def on_batch(count: int) -> None:
        nonlocal looked_at
        looked_at += count
        note(looked_at)

    target = digest_from_json(operation.target_digest)
    track_existing(kind, on_batch=on_batch)
    review(kind, operation.peer, target)
    stored = assign_ticks(kind)
    scope = scope_for(kind, operation.peer)
    if operation.peer is not None and kind.is_filtered:
        if scope is not None:
            mark_partial(kind, operation.peer)
        elif not same_endpoint(target.part_of, kind.endpoint):
            mark_full(kind, operation.peer)
    total = count_missing(kind, stored, target, scope)
    return {"phase": Phase.DONE, "source_digest": digest_as_json(stored.value), "total": total, "done": total}


def _apply(kind: Kind, operation: Operation, note: Callable[[int], None]) -> dict[str, object]:
    sender = sender_of_login(operation.login)
    receipt = receive_feed(kind, BytesIO(bytes(operation.body or b"")), sender)
    count = len(receipt.results)
    return {
        "phase": Phase.DONE,
        "result": render_results(kind, receipt.results, receipt.digest),
        "total": count,
        "done": count,
    }


def source_feed(kind: Kind, operation: Operation) -> SourceFeed:
    """Return the feed of a finished ``$syncSource`` operation."""
    return SourceFeed(
        kind=kind,
        source=digest_from_json(operation.source_digest),
        target=digest_from_json(operation.target_digest),
        url=operation_url(kind, operation),
        total=operation.total,
        scope=scope_for(kind, operation.peer),
    )


def operation_url(kind: Kind, operation: Operation) -> str:
    """Return the absolute URL of an operation, with the tracking id as the caller spelled it."""
    return kind.operation_url(operation.role, operation.tracking_id)


def check_success(operation: Operation) -> None:
    """Raise the stored error of ``operation`` if it has failed.

    Raises:
        OperationFailed: the operation has failed.
    """
    if operation.phase == Phase.FAILED:
        raise OperationFailed(**json.loads(operation.failure))
