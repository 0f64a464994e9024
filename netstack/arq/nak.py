"""Receiver 4, NAK: a gap is a loss, and what is missing is asked for at once.

    arrives   1 2   4 5 6   3                 the sender waits for no timer:
    says            └─ NAK 3                  a round trip after the loss, 3 is there

A NAK is sent once for each segment and may itself be lost, so the last word remains the sender's
timer: without one there is no at-least-once (lecture 19, item 16).

On a path that changes the order a gap is no loss. Then every NAK brings a segment that was on its
way all the time, and the path carries it twice. The receiver sees that: what it asked for comes
in duplicate. When that is more the rule than the exception, it stops asking (item 24: "if NAKs
are causing duplicates, stop NAKs"), and is a buffering receiver from then on.
"""

from __future__ import annotations

from netstack.arq.buffering import BufferingReceiver
from netstack.arq.receiver import BUFFER_BYTES
from netstack.arq.segment import MISSING_MAX, Nak, Segment

# A few duplicates prove nothing: links double datagrams, and timers run out too early.
DUPLICATES_MAX = 3


class NakReceiver(BufferingReceiver):
    """Asks for what is missing, as long as that helps.

    Args:
        stops: False: goes on asking whatever comes of it, for comparison.
    """

    def __init__(self, buffer_bytes: int = BUFFER_BYTES, *, stops: bool = True) -> None:
        super().__init__(buffer_bytes)
        self.asking = True
        self.naks = 0
        self.asked_in_vain = 0  # segments that were asked for, and then came twice
        self._stops = stops
        self._asked: set[int] = set()
        self._end = 0  # one past the highest index that came before its turn

    def _out_of_order(self, segment: Segment) -> None:
        super()._out_of_order(segment)
        missing = range(max(self.next_index, self._end), segment.index)
        self._end = max(self._end, segment.index + 1)
        if self.asking and missing:
            asked = tuple(missing[:MISSING_MAX])
            self._asked.update(asked)
            self._outputs.append(Nak(segment.message, asked))
            self.naks += 1

    def _duplicate(self, index: int) -> None:
        super()._duplicate(index)
        if index in self._asked:
            self.asked_in_vain += 1
            often = self.asked_in_vain > DUPLICATES_MAX
            if self._stops and often and 2 * self.asked_in_vain > len(self._asked):
                self.asking = False
