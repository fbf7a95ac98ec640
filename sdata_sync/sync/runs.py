"""Record the results that an engine reports to this node as the source (SData sync 5.7).

All results are counted. Results other than 200 are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from django.db import router
from django.db.models import F
from django.utils import timezone

from ..atom.text import format_stamp, replace_forbidden
from ..models import Run, RunResult
from ..turns import write_transaction
from .db.clock import now

if TYPE_CHECKING:
    from ..atom.entry import ReceivedResult
    from ..kind import Kind

#: The maximum number of results that are stored for one run; all are counted.
KEPT_RESULTS = 10_000
#: The maximum number of runs that are stored for one kind and target.
KEPT_RUNS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLabel:
    """Hold ``runName`` and ``runStamp``, the name of an engine's run (SData sync 4.1); the stamp may be no date."""

    name: str = ""
    stamp: str = ""

    @property
    def params(self) -> dict[str, str]:
        """Return the parameters of a URL that name the run."""
        return {"runName": self.name, "runStamp": self.stamp}


def new_run(source: str, target: str) -> RunLabel:
    """Return the label of a run that begins now, between two dataset URLs."""
    return RunLabel(name=f"{source} to {target}", stamp=format_stamp(now()))


def record_results(kind: Kind, results: Iterable[ReceivedResult], *, label: RunLabel, target: str) -> Run:
    """Record the results of one page of this node's changes at ``target``, in one transaction; return the run.

    The stored results of a resource are deleted when ``target`` has applied a version of it.
    """
    with write_transaction(router.db_for_write(Run)):
        run, _ = Run.objects.get_or_create(
            kind=kind.name,
            name=label.name[:200],
            stamp=label.stamp[:200],
            target=target[:500],
            defaults={"reported_at": timezone.now()},
        )
        # Results are deleted when a later version was applied, so the number of exceptions is only an upper bound.
        kept = run.exceptions if run.exceptions < KEPT_RESULTS else RunResult.objects.filter(run=run).count()
        room = KEPT_RESULTS - kept
        applied = exceptions = 0
        results = iter(results)
        while batch := list(islice(results, 500)):
            odd = [result for result in batch if result.status != 200]
            taken = [result.uuid for result in batch if result.status == 200 and result.uuid is not None]
            RunResult.objects.filter(run__kind=kind.name, run__target=run.target, uuid__in=taken).delete()
            RunResult.objects.bulk_create(_row(run, result) for result in odd[: max(room, 0)])
            room -= len(odd)
            applied += len(batch) - len(odd)
            exceptions += len(odd)
        Run.objects.filter(pk=run.pk).update(
            applied=F("applied") + applied, exceptions=F("exceptions") + exceptions, reported_at=timezone.now()
        )
        _forget_old_runs(kind, run.target)
    return run


def _row(run: Run, result: ReceivedResult) -> RunResult:
    said = "; ".join(diagnosis.message for diagnosis in result.diagnoses if diagnosis.message)
    return RunResult(
        run=run,
        uuid=result.uuid,
        status=result.status,
        message=replace_forbidden(result.message)[:200],
        diagnosis=replace_forbidden(said)[:2000],
    )


def _forget_old_runs(kind: Kind, target: str) -> None:
    old = (
        Run.objects.filter(kind=kind.name, target=target)
        .order_by("-reported_at")
        .values_list("pk", flat=True)[KEPT_RUNS:]
    )
    Run.objects.filter(pk__in=list(old[:500])).delete()
