"""The window as it is taught: each round trip, a step up if nothing was dropped, else a step down.

                       no drop        a drop
    AIMD  additive     cwnd + 1       cwnd / 2     multiplicative decrease: converges to fairness
    AIAD  additive     cwnd + 1       cwnd - 1     keeps the difference between two flows
    MIMD  multiplic.   cwnd × 1.1     cwnd / 2     keeps the ratio
    MIAD  multiplic.   cwnd × 1.1     cwnd - 1     the rich get richer

in packets, from one packet on and without slow start, so that one can see why slow start is
wanted. A time-out begins again at one packet. (Chiu and Jain, 1989, drew the four in one plane.)
"""

from __future__ import annotations

from typing import Final

from netstack.transport.congestion.base import Acked
from netstack.transport.rtt import RttEstimator

INCREASE_FACTOR: Final = 1.1


class Aimd:
    """Additive increase, multiplicative decrease; the other three by overriding one step each."""

    needs_pacing = False
    always_listens = True

    def __init__(self, mtu: int, rtt: RttEstimator) -> None:
        self.mtu = mtu
        self.cwnd = mtu
        self.ssthresh = 0.0  # there is no slow start
        self._round_end = 0  # bytes delivered when this round trip is over
        self._dropped = False
        self._stepped_down_at = -1.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} cwnd={self.cwnd / self.mtu:.1f} packets>"

    @property
    def pacing_rate(self) -> float:
        """See CongestionController: a window at once, as taught."""
        return float("inf")

    def up(self) -> float:
        """The window after a round trip without a drop."""
        return self.cwnd + self.mtu

    def down(self) -> float:
        """The window after one with a drop."""
        return self.cwnd / 2

    def on_acknowledged(self, acked: Acked) -> None:
        """See CongestionController."""
        if acked.marked:
            self.on_lost(acked.sent_at, acked.now, acked.in_flight)
        if acked.delivered_before < self._round_end:
            return
        self._round_end = acked.delivered
        if self._dropped:
            self.cwnd = max(int(self.down()), self.mtu)
            self._stepped_down_at = acked.now
        elif acked.limited:
            self.cwnd = int(self.up())
        self._dropped = False

    def on_lost(self, sent_at: float, now: float, in_flight: int) -> None:
        """See CongestionController: acted upon at the end of the round trip."""
        # What was sent before the last step down says nothing about the window of now.
        if sent_at > self._stepped_down_at:
            self._dropped = True

    def on_persistent_congestion(self) -> None:
        """See CongestionController."""
        self.cwnd = self.mtu
        self._dropped = False

    def on_mtu(self, mtu: int) -> None:
        """See CongestionController: as many packets as before."""
        self.cwnd = self.cwnd * mtu // self.mtu
        self.mtu = mtu


class Aiad(Aimd):
    """Additive increase, additive decrease."""

    def down(self) -> float:
        """See Aimd."""
        return self.cwnd - self.mtu


class Mimd(Aimd):
    """Multiplicative increase, multiplicative decrease."""

    def up(self) -> float:
        """See Aimd."""
        return self.cwnd * INCREASE_FACTOR


class Miad(Mimd):
    """Multiplicative increase, additive decrease."""

    def down(self) -> float:
        """See Aimd."""
        return self.cwnd - self.mtu
