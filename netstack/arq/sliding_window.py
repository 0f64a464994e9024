"""Sliding window: each acknowledgement lets one more segment out, so the link need not pause.

    acknowledged │ under way (W at most) │ must wait
    0 1 2 3 4 5  │ 6 7 8 9               │ 10 11 12
                 └─► slides when 6, its left edge, is acknowledged

    throughput = min(rate, W segments / RTT)

If W segments last a round trip, the first acknowledgement is back when the last one has left:

    window ≥ round-trip time × bottleneck data rate          (lecture 20, item 3)

More than that only waits in the bottleneck's queue. A segment that is lost holds the left edge
until it was sent again and acknowledged, even if all after it have arrived (item 2).
"""

from __future__ import annotations

from netstack.arq.sender import Sender


class SlidingWindowSender(Sender):
    """W segments under way, always."""

    def _limit(self) -> int:
        return self.next_index + self.window
