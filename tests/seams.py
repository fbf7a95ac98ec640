"""The places where tests give the app something from outside: the delivery port."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import httpx2

from sdata_sync.delivery import client
from sdata_sync.sync import operations, port
from sdata_sync.sync.trust import Sender

#: The sender of documents whose login does not matter to a test: it may speak for every endpoint.
ENGINE = Sender(name="an engine", may_carry=True)


@contextmanager
def port_with(**services) -> Iterator[None]:
    """Replace services of the delivery port: ``wake``, ``check_peers``, ``carry_out``."""
    present = port.port()
    usual = {name: getattr(present, name) for name in ("wake", "check_peers", "carry_out")}
    before = port.connect(SimpleNamespace(**{**usual, **services}))
    try:
        yield
    finally:
        port.connect(before)


def record_requests(monkeypatch, requests: list) -> None:
    """Append method and URL of each request to a peer to ``requests``."""
    inner = client.default_transport

    def handle(request):
        requests.append((request.method, str(request.url)))
        return inner.handle_request(request)

    monkeypatch.setattr(client, "default_transport", httpx2.MockTransport(handle))


def carrying_out_at_once():
    """Carry operations out in the thread that starts them."""
    return port_with(carry_out=operations.carry_out)
