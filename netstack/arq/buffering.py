"""Receiver 2, buffer: what comes before its turn waits for it.

    arrives   1 2   4 5 6     3
    holds           4 4 4
                      5 5
                        6
    delivers  1 2             3 4 5 6          memory: a window; sent again: what was lost

The lecture's buffer is as large as it must be, and that is its fault: while the network is bad it
grows and cannot be freed. Here it has a limit. What does not fit is refused, as if it had been
lost, and nothing that was taken is given up. This is the receiver of selective repeat.
"""

from __future__ import annotations

from netstack.arq.receiver import Receiver
from netstack.arq.segment import Segment


class BufferingReceiver(Receiver):
    """Keeps all that fits."""

    def _out_of_order(self, segment: Segment) -> None:
        if self._has_room(segment):
            self._hold(segment)
        else:
            self._drop()
