"""The port through which ``sync`` uses the delivery backend, which is in a layer above."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..kind import Kind


class DeliveryPort(Protocol):
    """The services of the delivery package that ``sync`` needs."""

    def wake(self, kind: str, is_own: bool) -> None:
        """Note that a change of ``kind`` was committed; called in the writer's thread, so it returns at once.

        ``is_own`` is False for a change that was received: it concerns only peers that this node relays to.
        """

    def check_peers(self, kind: Kind) -> bool:
        """Compare the tick of this node with the digests of all enabled peers (network), and pull lost changes.

        Returns:
            False if a peer has changes that this node lost in a restore and they could not be pulled.
        """

    def carry_out(self, operation: int) -> None:
        """Have the operation with this primary key carried out; return at once."""


class _NoDelivery:
    """The port until the app is ready: nothing is delivered, and no peer is asked."""

    def wake(self, kind: str, is_own: bool) -> None:
        pass

    def check_peers(self, kind: Kind) -> bool:
        return True

    def carry_out(self, operation: int) -> None:
        pass


_ports: list[DeliveryPort] = [_NoDelivery()]


def connect(port: DeliveryPort) -> DeliveryPort:
    """Use ``port`` from now on; return the port that was used before."""
    before, _ports[0] = _ports[0], port
    return before


class _Holding:
    """Collects the wake-ups, and passes everything else on."""

    def __init__(self, port: DeliveryPort) -> None:
        self._port = port
        self.kinds: dict[str, bool] = {}

    def wake(self, kind: str, is_own: bool) -> None:
        self.kinds[kind] = is_own or self.kinds.get(kind, False)

    def check_peers(self, kind: Kind) -> bool:
        return self._port.check_peers(kind)

    def carry_out(self, operation: int) -> None:
        self._port.carry_out(operation)


@contextmanager
def holding_wakes() -> Iterator[None]:
    """Let the delivery backend of this process deliver nothing inside the block; wake it afterwards.

    A catch-up reports what it delivers itself. Beside a thread of its own process it would count too little.
    """
    holding = _Holding(port())
    before = connect(holding)
    try:
        yield
    finally:
        connect(before)
        for kind, is_own in holding.kinds.items():
            before.wake(kind, is_own)


def port() -> DeliveryPort:
    """Return the port in use."""
    return _ports[0]
