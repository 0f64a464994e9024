"""NewReno: slow start, congestion avoidance, one halving a round trip (RFC 9002 §7, RFC 6582).

    slow start             cwnd += bytes acknowledged        doubles each round trip, until ssthresh
    congestion avoidance   cwnd += mtu × acked / cwnd        one packet more each round trip
    loss                   ssthresh = cwnd = cwnd / 2        once for all losses of one round trip
    persistent congestion  cwnd = 2 packets                  the lecture's time-out

Additive increase, multiplicative decrease: two flows that see the same losses end at equal shares.
"""

from __future__ import annotations

from typing import Final

from netstack.transport.congestion.base import Acked, LossBased
from netstack.transport.rtt import RttEstimator

LOSS_REDUCTION: Final = 0.5


class NewReno(LossBased):
    """The controller of RFC 9002's appendix B."""

    def __init__(self, mtu: int, rtt: RttEstimator) -> None:
        super().__init__(mtu, rtt)
        self._acked = 0  # since the window last grew

    def avoid(self, acked: Acked) -> None:
        """See LossBased."""
        self._acked += acked.size
        if self._acked >= self.cwnd:
            self._acked -= self.cwnd
            self.cwnd += self.mtu

    def reduce(self, now: float) -> int:
        """See LossBased."""
        self._acked = 0
        return int(self.cwnd * LOSS_REDUCTION)
