"""DCTCP (RFC 8257): as much less as there was congestion, not half of everything.

Switches mark packets (ECN) as soon as their queue is longer than K. Once a round trip:

    alpha <- (1 - g) alpha + g F        F: the share of the bytes that were marked, g = 1/16
    cwnd  <- cwnd (1 - alpha / 2)       if any was

A few marks make a small step down, so the queue stays near K and the line is never idle: the
window follows the best one instead of sawing around it. Loss is treated as by Reno.
"""

from __future__ import annotations

from typing import Final

from netstack.transport.congestion.base import MINIMUM_PACKETS, Acked
from netstack.transport.congestion.newreno import NewReno
from netstack.transport.rtt import RttEstimator

G: Final = 1 / 16


class Dctcp(NewReno):
    """For networks whose switches mark early; elsewhere it is NewReno."""

    always_listens = True

    def __init__(self, mtu: int, rtt: RttEstimator) -> None:
        super().__init__(mtu, rtt)
        self.alpha = 1.0  # RFC 8257 §4.2: the first mark halves, as a loss would
        self._round_end = 0
        self._acked_bytes = 0
        self._marked_bytes = 0.0

    def on_acknowledged(self, acked: Acked) -> None:
        """See CongestionController."""
        self._acked_bytes += acked.size
        self._marked_bytes += acked.marked * acked.size
        super().on_acknowledged(acked)
        if acked.delivered_before >= self._round_end:
            self._end_round(acked)

    def on_marked(self, acked: Acked) -> None:
        """See LossBased: slow start ends at the first mark; the rest is done once a round trip."""
        if self.cwnd < self.ssthresh:
            self.ssthresh = float(self.cwnd)

    def _end_round(self, acked: Acked) -> None:
        self._round_end = acked.delivered
        share = self._marked_bytes / self._acked_bytes
        self.alpha += G * (share - self.alpha)
        if self._marked_bytes and acked.sent_at > self._recovery_since:
            self.cwnd = max(int(self.cwnd * (1 - self.alpha / 2)), MINIMUM_PACKETS * self.mtu)
            self.ssthresh = float(self.cwnd)
        self._acked_bytes, self._marked_bytes = 0, 0.0
