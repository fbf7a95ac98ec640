"""What the database itself refuses, or holds and cannot give back: a fault of one row, or one of the environment."""

import random
import string

import pytest
from django.db import connection

from sdata_sync.models import DeferredEntry, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, SalesOrder

from ..wire import APP1, PATH, UUIDS, digest_xml, entry_xml, feed_xml, post, results, ticks

pytestmark = pytest.mark.django_db(transaction=True)
ACCOUNTS = registry.of_model(Account)


def execute(*statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def send(client, *names, notes=""):
    entries = [
        entry_xml(UUIDS[n], APP1, n + 1, f"<name>{name}</name><notes>{notes if name == 'bad' else ''}</notes>")
        for n, name in enumerate(names)
    ]
    return [r.status for r in results(post(client, feed_xml(digest_xml((APP1, 9), origin=APP1), *entries)))]


TRIGGERS = {
    "sqlite": (
        [
            "CREATE TRIGGER refuse BEFORE INSERT ON crm_account WHEN NEW.name = 'bad' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        ],
        ["DROP TRIGGER refuse"],
    ),
    "postgresql": (
        [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.name = 'bad' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON crm_account FOR EACH ROW EXECUTE FUNCTION refuse()",
        ],
        ["DROP TRIGGER refuse ON crm_account", "DROP FUNCTION refuse()"],
    ),
    "mysql": (
        [
            "CREATE TRIGGER refuse BEFORE INSERT ON crm_account FOR EACH ROW BEGIN "
            "IF NEW.name = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF; END"
        ],
        ["DROP TRIGGER refuse"],
    ),
}


@pytest.fixture
def trigger():
    create, drop = TRIGGERS[connection.vendor]
    execute(*create)
    yield
    execute(*drop)


def test_a_trigger_that_refuses_a_row(peer_client, trigger):
    assert send(peer_client, "first", "bad", "last") == [200, 202, 200]
    assert set(Account.objects.values_list("name", flat=True)) == {"first", "last"}
    assert "not this one" in DeferredEntry.objects.get().reason
    assert ticks(peer_client)[APP1] == 4


def test_a_row_too_large_for_an_index(peer_client):
    if connection.vendor != "postgresql":
        pytest.skip("a limit of PostgreSQL")
    execute("CREATE INDEX too_small ON crm_account (notes)")
    try:
        chance = random.Random(1)
        notes = "".join(chance.choice(string.ascii_letters) for _ in range(20_000))
        assert send(peer_client, "first", "bad", "last", notes=notes) == [200, 202, 200]
        assert "OperationalError" in DeferredEntry.objects.get().reason
    finally:
        execute("DROP INDEX too_small")


@pytest.mark.parametrize("rename", ["ALTER TABLE crm_account RENAME TO {}", None])
def test_a_missing_table_or_column_ends_the_page(peer_client, rename):
    if rename:
        there, back = "ALTER TABLE crm_account RENAME TO gone", "ALTER TABLE gone RENAME TO crm_account"
    else:
        there = "ALTER TABLE crm_account RENAME COLUMN city TO gone"
        back = "ALTER TABLE crm_account RENAME COLUMN gone TO city"
    execute(there)
    try:
        body = feed_xml(
            digest_xml((APP1, 9), origin=APP1), entry_xml(UUIDS[0], APP1, 1, "<name>a</name><city>b</city>")
        )
        assert post(peer_client, body).status_code in (500, 503)
    finally:
        execute(back)
    assert not DeferredEntry.objects.exists()
    assert not TrackedResource.objects.exists()
    assert APP1 not in ticks(peer_client)
    assert send(peer_client, "a") == [200]


def test_a_zero_date(peer_client):
    if connection.vendor != "mysql":
        pytest.skip("only MySQL and MariaDB hold one")
    account = Account.objects.create(name="a")
    for number in "12":
        SalesOrder.objects.create(account=account, order_number=number, order_date="2026-01-01")
    orders = registry.of_model(SalesOrder)
    assign_ticks(ACCOUNTS)
    assign_ticks(orders)
    mode = "SET SESSION sql_mode = ''"
    execute(mode, "UPDATE crm_salesorder SET order_date = '0000-00-00' WHERE order_number = '1'")
    execute("UPDATE crm_salesorder SET order_number = '3' WHERE order_number = '2'")
    found = scan(orders)
    assert (found.unreadable, found.changed) == (1, 1)
    assert "0000-00-00" in TrackedResource.objects.exclude(problem="").get().problem
    assert peer_client.get(f"{PATH.replace('accounts', 'salesOrders')}/$syncDigest").status_code == 200
