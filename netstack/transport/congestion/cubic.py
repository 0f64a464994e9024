"""CUBIC (RFC 9438): the window as a cubic function of the time since the last reduction.

    W(t) = C (t - K)^3 + W_max,   K = cbrt((W_max - cwnd) / C)      in packets, t in seconds

Concave up to the window at which something was lost, flat around it, convex beyond: near the old
limit it is careful, and far from it bold. Growth depends on time, not on acknowledgements, so long
round trips are not punished as they are by Reno; where Reno would be faster, it is followed.
"""

from __future__ import annotations

from typing import Final

from netstack.transport.congestion.base import Acked, LossBased
from netstack.transport.rtt import RttEstimator

C: Final = 0.4
BETA: Final = 0.7
# Reno's increase that is as fair as BETA's decrease (§4.3).
ALPHA: Final = 3 * (1 - BETA) / (1 + BETA)


class Cubic(LossBased):
    """The controller of RFC 9438, with fast convergence and the Reno-friendly region."""

    def __init__(self, mtu: int, rtt: RttEstimator) -> None:
        super().__init__(mtu, rtt)
        self._w_max = 0.0  # packets
        self._k_s = 0.0
        self._epoch: float | None = None
        self._w_reno = 0.0
        self._fraction = 0.0  # of a byte that the window has still to grow

    def avoid(self, acked: Acked) -> None:
        """See LossBased."""
        window = self.cwnd / self.mtu
        if self._epoch is None:
            self._begin_epoch(window, acked.now)
        assert self._epoch is not None
        packets = acked.size / self.mtu
        # Once it is where the loss was, Reno grows by a packet a round trip (§4.3).
        self._w_reno += (ALPHA if self._w_reno < self._w_max else 1.0) * packets / window
        time_s = acked.now - self._epoch
        if self._cubic(time_s) < self._w_reno:
            growth = self._w_reno - window
        else:
            target = min(max(self._cubic(time_s + self.rtt.smoothed), window), 1.5 * window)
            growth = (target - window) / window * packets
        self._fraction += max(growth, 0.0) * self.mtu
        self.cwnd += int(self._fraction)
        self._fraction %= 1.0

    def _begin_epoch(self, window: float, now: float) -> None:
        self._epoch = now
        self._w_reno = window
        self._w_max = max(self._w_max, window)
        self._k_s = float(((self._w_max - window) / C) ** (1 / 3))

    def _cubic(self, time_s: float) -> float:
        return C * (time_s - self._k_s) ** 3 + self._w_max

    def reduce(self, now: float) -> int:
        """See LossBased."""
        window = self.cwnd / self.mtu
        # Fast convergence (§4.7): a flow that had less than last time makes room for a newcomer.
        self._w_max = window * (1 + BETA) / 2 if window < self._w_max else window
        self._epoch = None
        return int(self.cwnd * BETA)

    def on_persistent_congestion(self) -> None:
        """See CongestionController."""
        super().on_persistent_congestion()
        self._epoch = None
