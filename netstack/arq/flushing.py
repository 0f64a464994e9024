"""Receiver 3, buffer and flush: the first two combined.

    arrives   1 2   4 5 6 7      3 4 5 6 7        a buffer of three
    holds           4 4 4 -
                      5 5 -
                        6 -  flushed
    delivers  1 2                3 4 5 6 7        memory: the buffer; sent again: more than lost

When the buffer is full it is emptied, and all that was in it must come again. What this buys is
memory that is soon free for others: a message that makes no progress holds on to nothing. The
price is that an Ack may take back what an earlier one said was held, so a sender must never
forget a segment before it was delivered.
"""

from __future__ import annotations

from netstack.arq.receiver import BUFFER_BYTES, Receiver
from netstack.arq.segment import Segment


class FlushingReceiver(Receiver):
    """Empties its buffer when it is full."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        super().__init__(buffer_bytes)
        self.flushes = 0

    def _out_of_order(self, segment: Segment) -> None:
        if self._has_room(segment):
            self._hold(segment)
            return
        self.dropped += len(self._held)
        self._held.clear()
        self.held_bytes = 0
        self.flushes += 1
        self._drop()
