"""NewReno: slow start, congestion avoidance, one halving a round trip (RFC 9002 §7, RFC 6582).

    slow start             cwnd += bytes acknowledged        doubles each round trip, until ssthresh
    congestion avoidance   cwnd += mtu × acked / cwnd        one packet more each round trip
    loss                   ssthresh = cwnd = cwnd / 2        once for all losses of one round trip
    persistent congestion  cwnd = 2 packets                  the lecture's time-out

Additive increase, multiplicative decrease: two flows that see the same losses end at equal shares.
"""

from __future__ import annotations

from typing import Final

INITIAL_PACKETS: Final = 10  # RFC 6928
MINIMUM_PACKETS: Final = 2
LOSS_REDUCTION: Final = 0.5


class NewReno:
    """The controller of RFC 9002's appendix B."""

    __slots__ = ("_acked_in_avoidance", "_mtu", "_recovery_since", "cwnd", "ssthresh")

    def __init__(self, mtu: int) -> None:
        self._mtu = mtu
        self._recovery_since = -1.0
        self._acked_in_avoidance = 0
        self.cwnd = INITIAL_PACKETS * mtu
        self.ssthresh = float("inf")

    def __repr__(self) -> str:
        phase = "slow start" if self.cwnd < self.ssthresh else "avoidance"
        return f"<NewReno {phase} cwnd={self.cwnd} ssthresh={self.ssthresh}>"

    def on_acknowledged(self, size: int, sent_at: float, now: float, *, limited: bool) -> None:
        """See CongestionController."""
        # What was sent before the last halving says nothing about the window of now.
        if not limited or sent_at <= self._recovery_since:
            return
        if self.cwnd < self.ssthresh:
            self.cwnd += size
            return
        self._acked_in_avoidance += size
        if self._acked_in_avoidance >= self.cwnd:
            self._acked_in_avoidance -= self.cwnd
            self.cwnd += self._mtu

    def on_lost(self, sent_at: float, now: float) -> None:
        """See CongestionController."""
        if sent_at <= self._recovery_since:
            return
        self._recovery_since = now
        self.cwnd = max(int(self.cwnd * LOSS_REDUCTION), MINIMUM_PACKETS * self._mtu)
        self.ssthresh = self.cwnd
        self._acked_in_avoidance = 0

    def on_persistent_congestion(self) -> None:
        """See CongestionController."""
        self.cwnd = MINIMUM_PACKETS * self._mtu
        self._recovery_since = -1.0

    def on_mtu(self, mtu: int) -> None:
        """See CongestionController. Ten packets of the new size may start if none was lost."""
        if mtu > self._mtu and self.ssthresh == float("inf"):
            self.cwnd = max(self.cwnd, INITIAL_PACKETS * mtu)
        self._mtu = mtu
        self.cwnd = max(self.cwnd, MINIMUM_PACKETS * mtu)
