"""An endpoint whose links may be bad: applies a LinkTable to what is sent.

With an empty table a datagram passes straight through, at the cost of one test.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence

from netstack.runtime.clock import Clock
from netstack.runtime.endpoint import NOT_ECT, Address, Endpoint, Receiver
from netstack.runtime.policy import LinkTable

Later = Callable[[float, Callable[[], None]], object]
"""(true seconds from now, what to do)"""


class FaultyEndpoint:
    """`inner`, seen through `links`."""

    __slots__ = ("_clock", "_inner", "_later", "_numbers", "_shapers", "_under_way", "address")

    def __init__(self, inner: Endpoint, links: LinkTable, clock: Clock, later: Later) -> None:
        self._inner = inner
        self._shapers = links.shapers
        self._clock = clock
        self._later = later
        # (when to be sent, number, datagram, destination, mark): a heap, and a timer for each.
        self._under_way: list[tuple[float, int, bytes, Address, int]] = []
        self._numbers = itertools.count()
        self.address = inner.address

    def __repr__(self) -> str:
        return f"<FaultyEndpoint {self._inner!r} links={len(self._shapers)}>"

    def send(self, datagrams: Sequence[bytes], destination: Address, mark: int = NOT_ECT) -> None:
        """See Endpoint."""
        if not self._shapers:
            self._inner.send(datagrams, destination, mark)
            return
        shaper = self._shapers.get(destination)
        if shaper is None:
            self._inner.send(datagrams, destination, mark)
            return
        now = self._clock.true_now()
        for datagram in datagrams:
            marked = shaper.mark(mark, now)
            for arrives, copy in shaper.shape(datagram, now):
                if arrives <= now:
                    self._inner.send((copy,), destination, marked)
                else:
                    entry = (arrives, next(self._numbers), copy, destination, marked)
                    heapq.heappush(self._under_way, entry)
                    self._later(arrives - now, self._send_next)

    def _send_next(self) -> None:
        # Whichever timer it is: those of (nearly) the same time need not come in order.
        _, _, datagram, destination, mark = heapq.heappop(self._under_way)
        self._inner.send((datagram,), destination, mark)

    def refuses(self, destination: Address) -> bool:
        """See Endpoint. What asks may be lost, and an answer that is not there at once is none."""
        shaper = self._shapers.get(destination)
        if shaper is not None:
            now = self._clock.true_now()
            if not any(arrives <= now for arrives, _ in shaper.shape(b"", now)):
                return False
        return self._inner.refuses(destination)

    def set_receiver(self, receiver: Receiver) -> None:
        """See Endpoint."""
        self._inner.set_receiver(receiver)

    def close(self) -> None:
        """See Endpoint."""
        self._inner.close()
