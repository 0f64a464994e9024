"""A router's output port: one line of a certain rate, and what waits for it.

Port       first in, first out; what does not fit is dropped at the tail; beyond `mark_bytes`
           a packet that may be marked is (ECN), as DCTCP's switches do
FairPort   a queue a flow, served in turn, so that nobody can take more than his share
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from netstack.runtime.endpoint import CE


class Clock(Protocol):
    """Virtual time."""

    now: float

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after `delay_s`."""


@dataclass(slots=True)
class Parcel:
    """A datagram on its way through a port."""

    flow: int
    data: bytes
    mark: int  # the two ECN bits
    deliver: Callable[[Parcel], None]


@dataclass(frozen=True, slots=True)
class Line:
    """What a port is: bytes a second, bytes of queue, and how it treats what comes."""

    rate: float
    queue_bytes: int
    mark_bytes: int | None = None
    mark_hold_s: float = 0.0  # how long marking goes on: with a round trip, all flows hear of it
    loss: float = 0.0  # of packets that the line damages, whatever the queue


class Port:
    """The bottleneck of an experiment.

    Args:
        line: its properties.
        clock: the experiment's.
        rng: for the line's own losses.
    """

    def __init__(self, line: Line, clock: Clock, rng: random.Random) -> None:
        self.line = line
        self.backlog = 0  # bytes that wait or are being sent
        self.drops = 0
        self.marks = 0
        self.carried = 0  # bytes
        self._clock = clock
        self._marks_until = -1.0
        self._rng = rng
        self._busy = False
        self._queue: deque[Parcel] = deque()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} backlog={self.backlog} drops={self.drops}>"

    def take(self, parcel: Parcel) -> None:
        """A datagram arrives."""
        size = len(parcel.data)
        if self.backlog + size > self.line.queue_bytes and not self._make_room(parcel):
            self.drops += 1
            return
        if parcel.mark and self._congested():
            parcel.mark = CE
            self.marks += 1
        self.backlog += size
        self._put(parcel)
        if not self._busy:
            self._send()

    def _congested(self) -> bool:
        limit, now = self.line.mark_bytes, self._clock.now
        if limit is not None and self.backlog > limit:
            self._marks_until = now + self.line.mark_hold_s
        return now <= self._marks_until

    def _make_room(self, parcel: Parcel) -> bool:
        return False

    def _put(self, parcel: Parcel) -> None:
        self._queue.append(parcel)

    def _next(self) -> Parcel | None:
        return self._queue.popleft() if self._queue else None

    def _send(self) -> None:
        parcel = self._next()
        self._busy = parcel is not None
        if parcel is not None:
            self._clock.later(len(parcel.data) / self.line.rate, lambda: self._sent(parcel))

    def _sent(self, parcel: Parcel) -> None:
        self.backlog -= len(parcel.data)
        self.carried += len(parcel.data)
        if not self.line.loss or self._rng.random() >= self.line.loss:
            parcel.deliver(parcel)
        self._send()


class FairPort(Port):
    """Deficit round robin (Shreedhar and Varghese, 1995), one packet's worth a turn.

    When there is no room, the longest queue loses its newest packet: who fills the buffer is who
    is dropped from.
    """

    QUANTUM = 1_500

    def __init__(self, line: Line, clock: Clock, rng: random.Random) -> None:
        super().__init__(line, clock, rng)
        self._queues: dict[int, deque[Parcel]] = {}  # in the order of their turns
        self._credit: dict[int, int] = {}

    def _make_room(self, parcel: Parcel) -> bool:
        sizes = {flow: sum(len(p.data) for p in queue) for flow, queue in self._queues.items()}
        if not sizes:
            return False
        longest = max(sizes, key=lambda flow: (sizes[flow], flow))
        if longest == parcel.flow:
            return False
        dropped = self._queues[longest].pop()
        if not self._queues[longest]:
            del self._queues[longest]
        self.backlog -= len(dropped.data)
        self.drops += 1
        return True

    def _put(self, parcel: Parcel) -> None:
        self._queues.setdefault(parcel.flow, deque()).append(parcel)

    def _next(self) -> Parcel | None:
        while self._queues:
            flow, queue = next(iter(self._queues.items()))
            credit = self._credit.get(flow, 0)
            size = len(queue[0].data)
            if credit < size:
                # To the end of the round, with more to spend next time.
                self._credit[flow] = credit + self.QUANTUM
                del self._queues[flow]
                self._queues[flow] = queue
                continue
            parcel = queue.popleft()
            self._credit[flow] = credit - size
            if not queue:
                del self._queues[flow]
                self._credit[flow] = 0
            return parcel
        return None
