"""A process that writes at one node until a file says stop, and notes before and after each write what it is.

Its own rows are written by nobody else: what it was told was written must be there in the end, at every node. A line of
the log is an intent (``I``) or, once the database has said so, a fact (``F``).
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import django

django.setup()

from django.db import DatabaseError, InterfaceError, connection, transaction

from testproject.crm.models import Account, SalesOrder

from .ledger import SHARED


class Writer:
    def __init__(self, name: str, log: Path, seed: int) -> None:
        self.name, self.dice = name, random.Random(seed)
        self.log = log.open("a", buffering=1)
        self.written = 0
        self.rows: dict[str, int] = {}
        self.orders: dict[str, int] = {}

    def note(self, what: str, row: str, value: object) -> None:
        self.log.write(json.dumps([what, row, value]) + "\n")

    def attempt(self, row: str, value: object, act: Callable[[], object]) -> bool:
        self.note("I", row, value)
        try:
            act()
        except (DatabaseError, InterfaceError):
            connection.close()
            time.sleep(0.05)
            return False
        self.note("F", row, value)
        return True

    def step(self) -> None:
        self.written += 1
        act = self.dice.choice(
            [self.create, self.edit, self.edit, self.edit_shared, self.order, self.edit_order, self.delete]
        )
        act()

    def create(self) -> None:
        row = f"{self.name}-{self.written}"
        if self.attempt(row, "0", lambda: Account(name=row, notes="0").save()):
            self.rows[row] = 0

    def edit(self) -> None:
        if self.rows:
            row = self.dice.choice(list(self.rows))
            value = str(self.written)

            def act() -> None:
                account = Account.objects.get(name=row)
                account.notes = value
                if self.dice.random() < 0.5:
                    account.save()
                else:
                    with transaction.atomic():
                        account.save()

            self.attempt(row, value, act)

    def delete(self) -> None:
        if len(self.rows) > 5 and self.dice.random() < 0.5:
            row = self.dice.choice(list(self.rows))
            del self.rows[row]  # whatever comes of it
            self.attempt(row, None, lambda: Account.objects.get(name=row).delete())

    def edit_shared(self) -> None:
        name = f"shared-{self.dice.randrange(SHARED)}"
        try:
            account = Account.objects.get(name=name)
            account.city = f"{self.name} {self.written}"
            account.save()
        except (DatabaseError, InterfaceError):
            connection.close()

    def order(self) -> None:
        number = f"{self.name}-{self.written}"

        def act() -> None:
            with transaction.atomic():
                account = Account.objects.get(name=f"shared-{self.dice.randrange(SHARED)}")
                order = SalesOrder.objects.create(account=account, order_number=number, order_date="2026-01-01")
                for line in range(3):
                    order.lines.create(line_number=line, description=f"{line} of {number}")

        if self.attempt(f"order {number}", ["0", 3], act):
            self.orders[number] = 0

    def edit_order(self) -> None:
        if self.orders:
            number = self.dice.choice(list(self.orders))
            value = str(self.written)

            def act() -> None:
                with transaction.atomic():
                    line = SalesOrder.objects.get(order_number=number).lines.get(line_number=0)
                    line.description = value
                    line.save()

            self.attempt(f"order {number}", [value, 3], act)


def main() -> None:
    name, log, stop, seed = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    writer = Writer(name, log, seed)
    while not stop.exists():
        try:
            writer.step()
        except (Account.DoesNotExist, DatabaseError, InterfaceError):
            connection.close()
            time.sleep(0.05)
        time.sleep(writer.dice.uniform(0, 0.15))


main()
