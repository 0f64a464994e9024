"""Fixed window: a batch of W segments at once, and the next when all of it is acknowledged.

    sender    1 2 3 ╲╲╲        4 5 6 ╲╲╲
    receiver         ╲╲╲ acks ╱╱╱     ╲╲╲       throughput = W segments / (RTT + (W-1) t_segment)

Overlapping transmissions, so W times as fast as lock-step as long as a batch is short beside the
round trip. The link is still idle between two batches: for a whole round trip less the time of
one segment, however large W is (lecture 20, item 1).
"""

from __future__ import annotations

from netstack.arq.sender import Sender


class FixedWindowSender(Sender):
    """W segments, then a pause."""

    _batch_end = 0

    def _limit(self) -> int:
        if self.next_index == self._batch_end:
            self._batch_end += self.window
        return self._batch_end
