"""The backend that leaves the delivery to the process ``manage.py sync_deliver``, and that process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db.models import Max, Q, Sum

from ...conf import conf
from ...core.text import fold
from ...models import DigestEntry, Operation, TrackedResource
from ...models.operation import Phase
from ...registry import registry
from ...sync.operations import carry_out_in_thread
from ..threads.loop import Loop
from ..threads.notifier import Notifier
from ..threads.pg_notify import Listener, can_notify, notify
from ..threads.pool import Pool
from .base import DeliveryBackend
from .thread import ThreadDelivery

if TYPE_CHECKING:
    from ...kind import Kind

#: The payload of a notification that requests an operation.
_OPERATIONS = "$operations"
#: The shortest pause, in seconds, between two looks for changes, and the factor by which it grows while none is found.
FIRST_PAUSE, GROWTH = 0.01, 1.5
#: The least value of the lookout's longest pause, in seconds, where notifications wake the lookout.
NOTIFIED_PAUSE = 2.0


class WorkerDelivery(DeliveryBackend):
    """Leaves the delivery to ``sync_deliver``: sends it a notification on PostgreSQL; elsewhere that process polls."""

    def __init__(self) -> None:
        self._pool = Pool()
        self._can_notify: bool | None = None

    def wake(self, kind: str, is_own: bool) -> None:
        """Notify the delivering process, from a thread."""
        if self._uses_notify():
            self._notifier().notify(kind, is_own)

    def carry_out(self, operation: int) -> None:
        """Request that the delivering process carries out the operation."""
        if self._uses_notify():
            self._notifier().request_operation(operation)

    def _uses_notify(self) -> bool:
        if self._can_notify is None:
            self._can_notify = can_notify()
        return self._can_notify

    def _notifier(self) -> Notifier:
        return self._pool.start("notifier", lambda: Notifier(notify, lambda operation: notify([_OPERATIONS])))


class Worker:
    """The threads of ``sync_deliver``: those that deliver, and a lookout that wakes them."""

    def __init__(self, longest_pause: float) -> None:
        self._delivery = ThreadDelivery()
        self._pool = Pool()
        self._longest_pause = longest_pause

    def start(self) -> None:
        """Start the threads that deliver, and the lookout that wakes them."""
        self._delivery.serve()
        uses_notify = can_notify()
        pause = max(self._longest_pause, NOTIFIED_PAUSE) if uses_notify else self._longest_pause
        lookout = self._pool.start("lookout", lambda: Lookout(self._delivery, pause))
        if uses_notify:
            self._pool.start("listener", lambda: Listener(lookout.wake))

    def stop(self) -> None:
        """Stop after the pages that are being posted."""
        self._pool.stop()
        # A page takes no longer than the timeout of its request. No other process waits for this one to end.
        self._delivery.stop(max(conf.timeout_seconds, conf.drain_seconds))


#: Values that change with every change of a kind: the latest mark, the tick of this node, the sum of all ticks.
_Pulse = tuple[tuple[int | None, int] | None, int | None, int | None]


class Lookout(Loop):
    """Looks for committed changes of all processes, more often after a change, and for operations that wait."""

    def __init__(self, delivery: ThreadDelivery, longest_pause: float) -> None:
        super().__init__("sdata-sync-lookout")
        self._delivery = delivery
        self._longest_pause = longest_pause
        self._pause = FIRST_PAUSE
        self._seen: dict[str, _Pulse] = {}

    def act(self, *, woken: bool) -> float:
        """Look for changes and operations once."""
        found = [kind for kind in registry if self._has_changed(kind)]
        if self._start_operations() or found:
            self._pause = FIRST_PAUSE
        else:
            self._pause *= GROWTH
        self._delivery.refresh()
        self._pause = min(self._pause, self._longest_pause)
        return self._pause

    def _has_changed(self, kind: Kind) -> bool:
        before, pulse = self._seen.get(kind.name), _pulse_of(kind)
        if pulse == before:
            return False
        self._seen[kind.name] = pulse
        if before is not None:  # the threads look for changes when they start
            self._delivery.wake(kind.name, is_own=pulse[:2] != before[:2])
        return True

    def _start_operations(self) -> bool:
        waiting = Operation.objects.filter(phase=Phase.WAITING, deleted_at=0).values_list("pk", flat=True)[:4]
        started = list(waiting)
        for operation in started:
            carry_out_in_thread(operation)
        return bool(started)


def _pulse_of(kind: Kind) -> _Pulse:
    marked = TrackedResource.objects.using(kind.database).filter(kind=kind.name, mark__isnull=False)
    latest = marked.order_by("-mark", "-pk").values_list("mark", "pk").first()
    ticks = DigestEntry.objects.using(kind.database).filter(digest=kind.name)
    seen = ticks.aggregate(own=Max("tick", filter=Q(endpoint__key=fold(kind.endpoint))), all=Sum("tick"))
    return latest, seen["own"], seen["all"]
