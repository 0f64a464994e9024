"""An endpoint whose links may be bad: applies a LinkTable to what is sent.

With an empty table a datagram passes straight through, at the cost of one test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from netstack.runtime.clock import Clock
from netstack.runtime.endpoint import Address, Endpoint, Receiver
from netstack.runtime.policy import LinkTable

Later = Callable[[float, Callable[[], None]], object]
"""(true seconds from now, what to do)"""


class FaultyEndpoint:
    """`inner`, seen through `links`."""

    __slots__ = ("_clock", "_inner", "_later", "_links", "_shapers", "address")

    def __init__(self, inner: Endpoint, links: LinkTable, clock: Clock, later: Later) -> None:
        self._inner = inner
        self._links = links
        self._shapers = links.shapers
        self._clock = clock
        self._later = later
        self.address = inner.address

    def __repr__(self) -> str:
        return f"<FaultyEndpoint {self._inner!r} links={len(self._shapers)}>"

    def send(self, datagrams: Sequence[bytes], destination: Address) -> None:
        """See Endpoint."""
        if not self._shapers:
            self._inner.send(datagrams, destination)
            return
        shaper = self._shapers.get(destination)
        if shaper is None:
            self._inner.send(datagrams, destination)
            return
        now = self._clock.now()
        for datagram in datagrams:
            for arrives, copy in shaper.shape(datagram, now):
                if arrives <= now:
                    self._inner.send((copy,), destination)
                else:
                    self._send_later(arrives - now, copy, destination)

    def _send_later(self, delay_s: float, datagram: bytes, destination: Address) -> None:
        self._later(delay_s, lambda: self._inner.send((datagram,), destination))

    def set_receiver(self, receiver: Receiver) -> None:
        """See Endpoint."""
        self._inner.set_receiver(receiver)

    def close(self) -> None:
        """See Endpoint."""
        self._inner.close()
