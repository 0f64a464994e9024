"""Lock-step (stop-and-wait): the next segment leaves when the last one is acknowledged.

    sender    1 ╲      2 ╲      3 ╲
    receiver     ╲ ack╱   ╲ ack╱   ╲ ack      throughput = segment / RTT, however fast the link

Nothing can be overtaken, so the receiver needs no buffer; and the link is idle nearly all the
time (lecture 20, item 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from netstack.arq.segment import Segment
from netstack.arq.sender import TRIES_MAX, Sender
from netstack.transport.rtt import RttEstimator


class LockStepSender(Sender):
    """One segment at a time."""

    def __init__(
        self,
        segments: Sequence[Segment],
        window: int = 1,
        *,
        timer: RttEstimator | None = None,
        tries_max: int = TRIES_MAX,
    ) -> None:
        if window != 1:
            raise ValueError(f"lock-step has a window of 1 segment, not {window}")
        super().__init__(segments, window, timer=timer, tries_max=tries_max)

    def _limit(self) -> int:
        return self.next_index + 1
