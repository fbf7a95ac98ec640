"""What ``save()`` of a registered model costs, as a ratio to the same model unregistered.

Runs in a process that is set up as a node (see ``run.py``). Registered and unregistered rounds alternate, and
the ratio is the median of the rounds' ratios, because the machine is noisy.
"""

import gc
import json
import statistics
import sys
import time

import django

django.setup()

from django.db import transaction  # noqa: E402

import sdata_sync  # noqa: E402
from sdata_sync.registry import registry  # noqa: E402
from testproject.crm.models import Account  # noqa: E402

ROUNDS, SAVES = 15, 300
VALUES = {
    "email": "office@example.com",
    "phone": "+49 30 1234567",
    "city": "Berlin",
    "country": "DE",
    "credit_limit": "12500.00",
    "notes": "A note of a usual length, as somebody at the counter would write it.",
}


def create() -> None:
    for number in range(SAVES):
        Account(name=f"Account {number}", **VALUES).save()


def update(accounts: list[Account]) -> None:
    for account in accounts:
        account.notes += "."
        account.save()


def timed(act, in_transaction: bool) -> float:
    gc.collect()
    started = time.perf_counter()
    if in_transaction:
        with transaction.atomic():
            act()
    else:
        act()
    return (time.perf_counter() - started) / SAVES * 1e6


def measure(act, in_transaction: bool) -> dict[str, float]:
    resource_class = type(registry.of_model(Account).declared)
    plain, registered = [], []
    for _ in range(ROUNDS):
        sdata_sync.unregister(Account)
        plain.append(timed(act, in_transaction))
        sdata_sync.register(Account)(resource_class)
        registered.append(timed(act, in_transaction))
    ratios = [r / p for r, p in zip(registered, plain, strict=True)]
    return {
        "plain_us": statistics.median(plain),
        "registered_us": statistics.median(registered),
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    create()
    accounts = list(Account.objects.all()[:SAVES])
    figures = {
        f"{name}, {'in one transaction' if in_transaction else 'in autocommit'}": measure(act, in_transaction)
        for in_transaction in (True, False)
        for name, act in (("create", create), ("update", lambda: update(accounts)))
    }
    json.dump(figures, sys.stdout)


main()
