"""What 100 changes cost among few and among very many tracked rows: stamping them, selecting a page of them.

Runs in a process that is set up as a node (see ``run.py``).
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import django

django.setup()

from django.db import connection, transaction  # noqa: E402

from sdata_sync.core.digest import Digest  # noqa: E402
from sdata_sync.models import DigestEntry, TrackedResource  # noqa: E402
from sdata_sync.registry import registry  # noqa: E402
from sdata_sync.sync.log.digests import load_digest  # noqa: E402
from sdata_sync.sync.log.marks import new_uuid  # noqa: E402
from sdata_sync.sync.log.tracked import create_tracked, new_tracked  # noqa: E402
from sdata_sync.sync.select.changes import prepare_page  # noqa: E402
from sdata_sync.sync.stamp.stamper import assign_ticks  # noqa: E402
from testproject.crm.models import Account  # noqa: E402

from .values import account  # noqa: E402

SIZES = [int(size) for size in os.environ.get("SDATA_BENCH_AMONG", "1000 1000000").split()]
CHANGES, ROUNDS, CHUNK = 100, 15, 10_000
ACCOUNTS = registry.of_kind("accounts")


def grow(size: int) -> None:
    """Have ``size`` accounts, each tracked and numbered."""
    have = TrackedResource.objects.filter(kind=ACCOUNTS.name).count()
    own = load_digest(ACCOUNTS).ensure_endpoint_id(ACCOUNTS.endpoint)
    while have < size:
        with transaction.atomic():
            accounts = [account(number) for number in range(have, min(have + CHUNK, size))]
            Account.objects.bulk_create(accounts)
            create_tracked("default", [tracked(row, own, have + n + 10) for n, row in enumerate(accounts)])
        have += len(accounts)
    DigestEntry.objects.filter(digest=ACCOUNTS.name, endpoint=own).update(tick=have + 10)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def tracked(row: Account, endpoint: int, tick: int) -> TrackedResource:
    numbered = new_tracked(ACCOUNTS.name, new_uuid())
    numbered.local_key, numbered.endpoint_id, numbered.tick, numbered.stamp = str(row.pk), endpoint, tick, 0
    numbered.etag = "of the benchmark"
    return numbered


def edit() -> None:
    """Edit some, all over the table."""
    keys = list(Account.objects.values_list("pk", flat=True))
    with transaction.atomic():
        for row in Account.objects.filter(pk__in=keys[:: len(keys) // CHANGES][:CHANGES]):
            row.city += "!"
            row.save()


def select() -> None:
    stored = load_digest(ACCOUNTS)
    known = stored.value.tick(ACCOUNTS.endpoint) - CHANGES
    target = Digest(origin="http://elsewhere/accounts").raised_all({ACCOUNTS.endpoint: known}, stamp=0)
    assert len(prepare_page(ACCOUNTS, stored, target, limit=CHANGES).entries) == CHANGES


def millis(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    account(0).save()
    assign_ticks(ACCOUNTS)
    figures = {}
    for size in SIZES:
        grow(size)
        stamping, selecting = [], []
        for _ in range(ROUNDS):
            edit()
            stamping.append(millis(lambda: assign_ticks(ACCOUNTS)))
            selecting.append(millis(select))
        figures[str(size)] = {"number": statistics.median(stamping), "select": statistics.median(selecting)}
    json.dump(figures, sys.stdout)


main()
