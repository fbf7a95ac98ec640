"""The places where tests give the app something from outside: the delivery port."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from sdata_sync.sync import operations, port


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


def carrying_out_at_once():
    """Carry operations out in the thread that starts them."""
    return port_with(carry_out=operations.carry_out)
