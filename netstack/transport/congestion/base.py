"""What a congestion controller is told, and what it answers: how much may be in flight, how fast.

Acked                  one acknowledgement
CongestionController   the interface
LossBased              what those that take loss for congestion have in common: slow start, one
                       reduction a round trip, the same for a mark (ECN) as for a loss
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, NamedTuple, Protocol

from netstack.transport.congestion.hystart import HyStart
from netstack.transport.rtt import RttEstimator

INITIAL_PACKETS: Final = 10  # RFC 6928
MINIMUM_PACKETS: Final = 2

SSTHRESH_AT_FIRST: Final = float("inf")  # arbitrarily high (RFC 5681 §3.1)

# Paced a little faster than a window a round trip, or the window could never be filled
# (RFC 9002 §7.7); twice as fast while it doubles.
PACING_GAIN: Final = 1.25
PACING_GAIN_SLOW_START: Final = 2.0


class Acked(NamedTuple):
    """What one acknowledgement told. Sizes in bytes, times in seconds."""

    now: float
    size: int  # of the packets that it is the first to acknowledge
    sent_at: float  # when the newest of them had left
    limited: bool  # the window, not the application, had bounded the flight
    in_flight: int  # after it
    marked: float  # share of them that a router marked instead of dropping them, 0 to 1
    delivered: int  # by the connection so far
    delivered_before: int  # the same, when the newest of them left
    rate: float  # bytes a second, delivered between these two; 0 if that cannot be told


class CongestionController(Protocol):
    """Bytes and seconds throughout."""

    cwnd: int
    ssthresh: float
    needs_pacing: bool  # whether it goes wrong without
    always_listens: bool  # else it is told of acknowledgements only if limited, or marked

    @property
    def pacing_rate(self) -> float:
        """Bytes a second at which packets should leave; infinity: as they come."""

    def on_acknowledged(self, acked: Acked) -> None:
        """Packets arrived."""

    def on_lost(self, sent_at: float, now: float, in_flight: int) -> None:
        """Packets are lost, the newest of which was sent at `sent_at`."""

    def on_persistent_congestion(self) -> None:
        """Everything sent over several time-outs was lost: start over (RFC 9002 §7.6)."""

    def on_mtu(self, mtu: int) -> None:
        """The path carries datagrams of `mtu` bytes from now on."""


class LossBased(ABC):
    """Slow start until something is lost; then `avoid` lets the window grow, `reduce` shrink."""

    needs_pacing = False
    always_listens = False

    def __init__(self, mtu: int, rtt: RttEstimator) -> None:
        self.mtu = mtu
        self.rtt = rtt
        self.cwnd = INITIAL_PACKETS * mtu
        self.ssthresh = SSTHRESH_AT_FIRST
        self._recovery_since = -1.0
        self._hystart = HyStart()

    def __repr__(self) -> str:
        phase = "slow start" if self.cwnd < self.ssthresh else "avoidance"
        return f"<{type(self).__name__} {phase} cwnd={self.cwnd} ssthresh={self.ssthresh}>"

    @abstractmethod
    def avoid(self, acked: Acked) -> None:
        """Congestion avoidance: let `cwnd` grow by what was acknowledged."""

    @abstractmethod
    def reduce(self, now: float) -> int:
        """Something was lost or marked: the window from now on."""

    @property
    def pacing_rate(self) -> float:
        """See CongestionController."""
        gain = PACING_GAIN_SLOW_START if self.cwnd < self.ssthresh else PACING_GAIN
        return gain * self.cwnd / self.rtt.smoothed

    def on_acknowledged(self, acked: Acked) -> None:
        """See CongestionController."""
        if acked.marked:
            self.on_marked(acked)
        # What was sent before the last reduction says nothing about the window of now.
        if not acked.limited or acked.sent_at <= self._recovery_since:
            return
        if self.cwnd >= self.ssthresh:
            self.avoid(acked)
        elif self.ssthresh < SSTHRESH_AT_FIRST:
            self.cwnd += acked.size  # HyStart++ is for the first slow start (RFC 9406 §4.3)
        else:
            self.cwnd += self._hystart.growth(acked, self.rtt.latest)
            if self._hystart.over:
                self.ssthresh = float(self.cwnd)

    def on_marked(self, acked: Acked) -> None:
        """A router says that its queue grows: as a loss (RFC 3168 §6.1.2)."""
        self.on_lost(acked.sent_at, acked.now, acked.in_flight)

    def on_lost(self, sent_at: float, now: float, in_flight: int) -> None:
        """See CongestionController: once for all losses of one round trip."""
        if sent_at <= self._recovery_since:
            return
        self._recovery_since = now
        self.cwnd = max(self.reduce(now), MINIMUM_PACKETS * self.mtu)
        self.ssthresh = float(self.cwnd)

    def on_persistent_congestion(self) -> None:
        """See CongestionController: the lecture's time-out. Slow start, up to where it was."""
        self.cwnd = MINIMUM_PACKETS * self.mtu
        self._recovery_since = -1.0

    def on_mtu(self, mtu: int) -> None:
        """See CongestionController. Ten packets of the new size may start if none was lost."""
        if mtu > self.mtu and self.ssthresh == SSTHRESH_AT_FIRST:
            self.cwnd = max(self.cwnd, INITIAL_PACKETS * mtu)
        self.mtu = mtu
        self.cwnd = max(self.cwnd, MINIMUM_PACKETS * mtu)
