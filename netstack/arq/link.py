"""One message over one link, in virtual time: what a pair of strategies makes of it.

    sender ──► LinkShaper (there) ──► receiver       a heap holds what is on its way, by its time
           ◄── LinkShaper (back)  ◄──                of arrival; time jumps from one to the next

The shapers are those of the simulation and of live daemons (`netstack/runtime/policy.py`): delay,
bottleneck rate and queue, loss, bursts, duplication, reordering, damage. Every datagram is
encoded and decoded, so damage is found as it would be on a wire: by its checksum.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netstack.arq.errors import GaveUp, Malformed
from netstack.arq.receiver import Receiver
from netstack.arq.segment import Segment, decode
from netstack.arq.sender import Sender
from netstack.runtime.policy import LinkPolicy, LinkShaper

if TYPE_CHECKING:
    import random


class Link:
    """Both directions between a sender and a receiver.

    Args:
        there: what happens to segments.
        back: what happens to answers.
        rng: the dice for both.
    """

    def __init__(self, there: LinkPolicy, back: LinkPolicy, rng: random.Random) -> None:
        self.there = LinkShaper(there, rng)
        self.back = LinkShaper(back, rng)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a transfer."""

    time_s: float  # until the sender knew the end, one way or the other
    throughput: float  # bytes of the message a second; 0 if it was given up, inf if in no time
    data: bytes  # what the receiving application got
    bytes_sent_again: int
    high_water_bytes: int  # of the receiver's memory
    duplicates: int
    timeouts: int
    gave_up: GaveUp | None


def transfer(sender: Sender, receiver: Receiver, link: Link) -> Result:
    """Send a message from end to end. Ends always: a sender's tries are numbered."""
    return _Transfer(sender, receiver, link).run()


class _Transfer:
    def __init__(self, sender: Sender, receiver: Receiver, link: Link) -> None:
        self.sender, self.receiver, self.link = sender, receiver, link
        self.now = 0.0
        self._under_way: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._data: list[bytes] = []

    def run(self) -> Result:
        sender, receiver = self.sender, self.receiver
        gave_up = None
        sender.start(self.now)
        try:
            while not sender.done:
                self._send()
                self._step()
        except GaveUp as error:
            gave_up = error
        end = self.now
        while self._under_way:  # what is late must do no harm either
            self._arrive()
        data = b"".join(self._data)
        return Result(
            time_s=end,
            throughput=0.0 if gave_up else len(data) / end if end else float("inf"),
            data=data,
            bytes_sent_again=sender.bytes_sent_again,
            high_water_bytes=receiver.high_water_bytes,
            duplicates=receiver.duplicates,
            timeouts=sender.timeouts,
            gave_up=gave_up,
        )

    def _step(self) -> None:
        """To whatever comes next: an arrival, or the sender's timer if that is earlier."""
        deadline = self.sender.next_deadline()
        if self._under_way and (deadline is None or self._under_way[0][0] <= deadline):
            self._arrive()
            return
        assert deadline is not None, f"{self.sender!r} waits for nothing"
        self.now = deadline
        self.sender.on_deadline(self.now)

    def _arrive(self) -> None:
        self.now, _, datagram = heapq.heappop(self._under_way)
        try:
            arrived = decode(datagram)
        except Malformed:
            return
        if isinstance(arrived, Segment):
            self.receiver.receive(arrived)
            self._data.append(self.receiver.take_data())
        else:
            self.sender.receive(arrived, self.now)

    def _send(self) -> None:
        for segment in self.sender.take_outputs():
            self._put(self.link.there, segment.encode())
        for answer in self.receiver.take_outputs():
            self._put(self.link.back, answer.encode())

    def _put(self, shaper: LinkShaper, datagram: bytes) -> None:
        for at, copy in shaper.shape(datagram, self.now):
            self._count += 1
            heapq.heappush(self._under_way, (at, self._count, copy))
