"""Windows that do not look at the network: what there was before congestion control.

    LockStep        one packet, then wait for its acknowledgement     S / RTT
    FixedWindow     a batch, then wait for all of it                  W / (RTT + time to send W)
    SlidingWindow   W in flight at all times                          min(W / RTT, bottleneck)

The best window is the bottleneck's rate times the round-trip time: smaller leaves the line idle,
larger only fills a queue. Nobody knows the rate, and it changes: hence congestion control.
"""

from __future__ import annotations

from netstack.transport.congestion.base import Acked
from netstack.transport.rtt import RttEstimator


class SlidingWindow:
    """`packets` in flight, whatever happens to them."""

    needs_pacing = False
    always_listens = True

    packets = 64

    def __init__(self, mtu: int, rtt: RttEstimator) -> None:
        self.mtu = mtu
        self.cwnd = self.packets * mtu
        self.ssthresh = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.packets} packets>"

    @property
    def pacing_rate(self) -> float:
        """See CongestionController."""
        return float("inf")

    def on_acknowledged(self, acked: Acked) -> None:
        """See CongestionController."""

    def on_lost(self, sent_at: float, now: float, in_flight: int) -> None:
        """See CongestionController."""

    def on_persistent_congestion(self) -> None:
        """See CongestionController."""

    def on_mtu(self, mtu: int) -> None:
        """See CongestionController."""
        self.mtu = mtu
        self.cwnd = self.packets * mtu


class LockStep(SlidingWindow):
    """Stop and wait."""

    packets = 1


class FixedWindow(SlidingWindow):
    """The next batch may leave when nothing of the last one is under way any more."""

    def on_acknowledged(self, acked: Acked) -> None:
        """See CongestionController."""
        self.cwnd = acked.in_flight or self.packets * self.mtu

    def on_lost(self, sent_at: float, now: float, in_flight: int) -> None:
        """See CongestionController."""
        self.cwnd = in_flight or self.packets * self.mtu


def window_of(kind: type[SlidingWindow], packets: int) -> type[SlidingWindow]:
    """`kind` with another size."""
    return type(kind.__name__, (kind,), {"packets": packets})
