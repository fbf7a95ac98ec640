"""What must be there in the end, from the writers' logs; and what is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Rows that are there from the beginning and that every writer edits: which edit stays is decided, alike everywhere.
SHARED = 8
#: Runs at a node: what a user of it sees, in plain values, the same whatever the database.
SNAPSHOT = """
from sdata_sync.models import DeferredEntry, PendingReference, Stream, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.db.clock import now
from sdata_sync.sync.log.digests import load_digest
def orders():
    for o in SalesOrder.objects.select_related("account").prefetch_related("lines"):
        lines = sorted([l.line_number, l.description] for l in o.lines.all())
        yield [o.order_number, o.account.name, lines]
result = {
    "accounts": sorted([a.name, a.notes, a.city] for a in Account.objects.all()),
    "orders": sorted(orders()),
    "digests": {
        r.name: {e.endpoint.lower(): e.tick for e in load_digest(r).value if e.tick > 1} for r in registry
    },
    "unnumbered": TrackedResource.objects.filter(mark__isnull=False).count(),
    "deferred": [d.reason for d in DeferredEntry.objects.all()],
    "pending": PendingReference.objects.count(),
    "streams": [
        f"{s} failures={s.failures} retry={s.retry_at - now()} held={s.held_until - now()} {s.holder} "
        f"posted={s.posted_at - now()} wanted={s.wanted} known={s.known_digest} {s.last_error}"
        for s in Stream.objects.select_related("peer") if s.failures or s.held_until or s.posted_at
    ],
}
connection.close()
"""


def allowed(logs: Iterable[Path]) -> dict[str, list[Any]]:
    """Return the states that each row may have: the last one acknowledged, or any that was attempted after it."""
    states: dict[str, list[Any]] = {}
    for log in logs:
        for line in log.read_text().splitlines():
            what, row, value = json.loads(line)
            if what == "F":
                states[row] = [value]
            else:
                states.setdefault(row, [None]).append(value)
    return states


def found(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Return the state of each row."""
    states: dict[str, Any] = {name: notes for name, notes, _ in snapshot["accounts"]}
    for number, _, lines in snapshot["orders"]:
        first = lines[0][1] if lines else None
        states[f"order {number}"] = ["0" if first == f"0 of {number}" else first, len(lines)]
    return states


def faults_of(snapshot: dict[str, Any], states: dict[str, list[Any]]) -> list[str]:
    """Return what was lost, and what is there twice."""
    there = found(snapshot)
    wrong = [
        f"{row}: expected one of {expected}, found {there.get(row)!r}"
        for row, expected in states.items()
        if there.get(row) not in expected
    ]
    names = Counter(
        [name for name, *_ in snapshot["accounts"]] + [f"order {number}" for number, *_ in snapshot["orders"]]
    )
    wrong += [f"{name}: there {count} times" for name, count in names.items() if count > 1]
    wrong += [f"{row}: nobody wrote it" for row in there if row not in states and not row.startswith("shared-")]
    return wrong
