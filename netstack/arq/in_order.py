"""Receiver 1, in order only: what comes before its turn is dropped, to be sent again.

    arrives   1 2   4 5 6        3 4 5 6
    delivers  1 2                3 4 5 6       memory: none; sent again: a window for each loss

This is the receiver of go-back-N.
"""

from __future__ import annotations

from netstack.arq.receiver import Receiver
from netstack.arq.segment import Segment


class InOrderReceiver(Receiver):
    """Needs no buffer."""

    def _out_of_order(self, segment: Segment) -> None:
        self._drop()
