"""The documents on the wire, byte for byte, of a recorded exchange with a fixed clock, uuids and keys.

``SDATA_RECORD=1 pytest tests/integration/test_exchange.py`` records it anew. Do that only where an issue says that the
documents change, and read the difference.
"""

import itertools
import os
import re
from pathlib import Path

import httpx2
import pytest
from django.db import connections

import sdata_sync
from sdata_sync.conf import conf
from sdata_sync.delivery import catchup
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import Peer
from sdata_sync.registry import registry
from sdata_sync.sync.db import clock
from sdata_sync.sync.log import marks
from testproject.crm.models import Account, Contact, SalesOrder, SalesOrderLine

from ..many_nodes import LocalNode, wired
from ..talk import pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("exchange"),
]
RECORDED = Path(__file__).parent.parent / "data" / "exchange.txt"
BEGINNING = 1_700_000_000_000


class Lines(sdata_sync.SyncResource):
    model = SalesOrderLine


class SomeOrders(sdata_sync.SyncResource):
    """The second node may have only some of the first one's orders."""

    children = {"orderLines": Lines}

    def queryset_for(self, peer):
        if conf.base_url.startswith("http://node0/") and peer is not None:
            return SalesOrder.objects.exclude(order_number="secret")
        return None


@pytest.fixture
def nodes(monkeypatch):
    if connections["node0"].vendor != "sqlite":
        pytest.skip("one database is enough for the documents")
    usual = type(registry.of_model(SalesOrder).declared)
    sdata_sync.unregister(SalesOrder)
    nodes = [LocalNode(0), LocalNode(1, priority=3)]
    with wired(nodes, monkeypatch), sdata_sync.registered(SalesOrder, SomeOrders):
        for node in nodes:
            node.reset([other for other in nodes if other is not node])
            with connections[node.alias].cursor() as cursor:  # so that the keys begin at 1
                cursor.execute("DELETE FROM sqlite_sequence WHERE name LIKE 'crm_%'")
        yield nodes
    sdata_sync.register(SalesOrder)(usual)


class Recorder:
    """Keeps every request to a node and its answer."""

    def __init__(self, monkeypatch):
        self.said = []
        self.now = BEGINNING
        usual = httpx2.WSGITransport.handle_request

        def handle_request(transport, request):
            response = usual(transport, request)
            content = response.read()
            self.said.append(f"{request.method} {self.shown(request.url)}\n{self.lines(request.read())}")
            self.said.append(f"{response.status_code}\n{self.lines(content)}")
            return httpx2.Response(response.status_code, headers=response.headers, content=content)

        numbers = itertools.count(1)
        monkeypatch.setattr(httpx2.WSGITransport, "handle_request", handle_request)
        monkeypatch.setattr(marks, "randbits", lambda bits: next(numbers))
        monkeypatch.setattr(catchup, "told_differences", set())
        monkeypatch.setattr(clock, "read_ns", lambda: self.now * 1_000_000)

    @staticmethod
    def shown(text):
        # The ids of operations are random.
        return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "ID", str(text))

    def lines(self, content):
        return self.shown(content.decode()).replace("><", ">\n<")

    def step(self, title):
        self.now += 1000
        self.said.append(f"=== {title}")

    def text(self):
        return "\n".join(self.said) + "\n"


def deliver(here, there):
    with here.at_work(), PeerSession(Peer.objects.get(name=there.alias)) as session:
        session.deliver(registry, impatient=True)


def test_the_documents_are_as_recorded(nodes, monkeypatch):
    a, b = nodes
    wire = Recorder(monkeypatch)

    wire.step("immediate: accounts, a contact, an order with lines, one that is not for the other node")
    with a.at_work():
        ada = Account.objects.create(name="Ada & Co", credit_limit="1.50", notes="<two>\nlines")
        old = Account.objects.create(name="Old")
        contact = Contact.objects.create(account=old, last_name="Lovelace")
        order = SalesOrder.objects.create(account=ada, contact=contact, order_number="1", order_date="2024-02-29")
        for number in (1, 2):
            order.lines.create(line_number=number, description=f"line {number}")
        SalesOrder.objects.create(account=ada, order_number="secret", order_date="2024-03-01")
    deliver(a, b)

    wire.step("immediate: an edit")
    with a.at_work():
        ada.city = "London"
        ada.save()
    deliver(a, b)

    wire.step("a conflict, won by the priority of the second node")
    with b.at_work():
        theirs = Account.objects.get(name="Ada & Co")
        theirs.city = "York"
        theirs.save()
    wire.now += 1000
    with a.at_work():
        ada.city = "Bath"
        ada.save()
    deliver(a, b)
    pull(a, b)

    wire.step("catch-up: pulled, with a contact that was moved and the deletion of its account")
    with a.at_work():
        contact.account = ada
        contact.save()
        old.delete()
    pull(b, a)

    wire.step("a deferral: an element that the field does not take")
    with a.at_work():
        ada.refresh_from_db()
        Account.objects.filter(pk=ada.pk).update(email="no address")
        ada.refresh_from_db()
        ada.save()
    push(a, b)

    wire.step("a part: an order leaves it, another comes into it")
    with a.at_work():
        SalesOrder.objects.filter(order_number="secret").update(order_number="2")
        order.order_number = "secret"
        order.save()
    push(a, b)

    if os.environ.get("SDATA_RECORD"):
        RECORDED.write_text(wire.text())
    assert wire.text() == RECORDED.read_text()
