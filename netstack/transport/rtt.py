"""How long an answer takes, and how long to wait for one.

RFC 6298 §2:  RTTVAR <- 3/4 RTTVAR + 1/4 |SRTT - R|,  with the SRTT of *before* this sample,
              SRTT   <- 7/8 SRTT + 1/8 R,             RTO <- SRTT + max(G, 4 RTTVAR)

The lecture updates the average first and takes the deviation from the *new* one. The new average
lies an eighth of the way nearer to the sample, so its deviation is 7/8 of the RFC's: the same
filter, slightly more optimistic. `LectureEwma` is that version; the tests hold the two against
each other.

Karn's rule (never sample a retransmitted segment) is kept by construction: a packet number is
never used again, so an acknowledgement always says which transmission it answers.
"""

from __future__ import annotations

from typing import Final

ALPHA: Final = 1 / 8
BETA: Final = 1 / 4
K: Final = 4

# Timers below this fire on scheduling noise (RFC 9002 §6.1.2).
GRANULARITY_S: Final = 0.001

# RFC 6298 (2.4) says one second, for the Internet of its day. Here it bounds from below what two
# busy cores may take to schedule the peer: a spurious probe costs one packet, so it may be this
# near.
RTO_S_MIN: Final = 0.02
RTO_S_MAX: Final = 60.0


class RttEstimator:
    """Smoothed round-trip time and its variation after RFC 6298, in seconds."""

    __slots__ = ("_initial_s", "latest", "minimum", "rto_s", "samples", "smoothed", "variation")

    def __init__(self, initial_s: float) -> None:
        self._initial_s = initial_s
        self.restart()

    def restart(self) -> None:
        """Another path, of which nothing is known."""
        self.smoothed = self.latest = self._initial_s
        self.variation = self._initial_s / 2
        self.minimum = float("inf")
        self.samples = 0
        self.rto_s = self._compute_rto()

    def __repr__(self) -> str:
        return f"<Rtt {self.smoothed * 1000:.3f} ms ±{self.variation * 1000:.3f} n={self.samples}>"

    def sample(self, rtt_s: float, ack_delay_s: float = 0.0) -> None:
        """Take one measurement; `ack_delay_s` is what the peer says it held its answer back."""
        self.latest = rtt_s
        # The minimum is not corrected: a peer that overstates its delay must not lower it.
        if rtt_s < self.minimum:
            self.minimum = rtt_s
        if rtt_s - self.minimum >= ack_delay_s:
            rtt_s -= ack_delay_s
        if self.samples == 0:
            self.smoothed, self.variation = rtt_s, rtt_s / 2  # RFC 6298 (2.2)
        else:
            self._update(rtt_s)
        self.samples += 1
        self.rto_s = self._compute_rto()

    def _update(self, rtt_s: float) -> None:
        self.variation += BETA * (abs(self.smoothed - rtt_s) - self.variation)
        self.smoothed += ALPHA * (rtt_s - self.smoothed)

    def rto(self, back_off: int = 0) -> float:
        """How long to wait for an answer, doubled `back_off` times (RFC 6298 (5.5))."""
        return float(min(self.rto_s * 2 ** min(back_off, 16), RTO_S_MAX))

    def _compute_rto(self) -> float:
        margin = K * self.variation
        base = self.smoothed + (margin if margin > GRANULARITY_S else GRANULARITY_S)
        if base < RTO_S_MIN:
            return RTO_S_MIN
        return base if base < RTO_S_MAX else RTO_S_MAX


class LectureEwma(RttEstimator):
    """The lecture's order: the average first, then the deviation from the new average."""

    __slots__ = ()

    def _update(self, rtt_s: float) -> None:
        self.smoothed += ALPHA * (rtt_s - self.smoothed)
        self.variation += BETA * (abs(self.smoothed - rtt_s) - self.variation)


class FixedTimer(RttEstimator):
    """Waits as long as it was told at first, whatever it sees: what the lecture warns of.

    A server that gets slower than the timer is asked again while it still works on the first
    request, which makes it slower still.
    """

    __slots__ = ()

    def rto(self, back_off: int = 0) -> float:
        """Never backs off."""
        return self.rto_s

    def _compute_rto(self) -> float:
        return self.rto_s if self.samples else super()._compute_rto()


ESTIMATORS: Final[dict[str, type[RttEstimator]]] = {
    "rfc6298": RttEstimator,
    "lecture": LectureEwma,
    "fixed": FixedTimer,
}
