"""BBR (version 1, draft-cardwell-iccrg-bbr): a model of the path instead of a reaction to loss.

    bottleneck   the largest delivery rate of the last ten round trips
    round trip   the shortest of the last ten seconds
    window       two of their products; packets leave at the bottleneck's rate × gain

    STARTUP ──(three rounds without a quarter more rate)──> DRAIN ──(queue empty)──> PROBE_BW
       gain 2.89                                            gain 1/2.89      gains 1.25, 0.75, 1 × 6
    PROBE_RTT for 0.2 s, at four packets, when ten seconds have shown no shorter round trip

Loss that is not congestion does not slow it, and it does not fill a deep buffer to find its end.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from netstack.transport.congestion.base import INITIAL_PACKETS, Acked
from netstack.transport.rtt import RttEstimator

STARTUP, DRAIN, PROBE_BW, PROBE_RTT = "startup", "drain", "probe bandwidth", "probe round trip"

HIGH_GAIN: Final = 2.885  # 2 / ln 2: the smallest that doubles the rate each round trip
CYCLE: Final[tuple[float, ...]] = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
WINDOW_GAIN: Final = 2.0
BANDWIDTH_ROUNDS: Final = 10
FULL_ROUNDS: Final = 3
FULL_GROWTH: Final = 1.25
RTT_EXPIRES_S: Final = 10.0
PROBE_RTT_S: Final = 0.2
MINIMUM_PACKETS: Final = 4


class Bbr:
    """The controller; `ssthresh` has no meaning for it."""

    needs_pacing = True
    always_listens = True

    def __init__(self, mtu: int, rtt: RttEstimator) -> None:
        self.mtu = mtu
        self.rtt = rtt
        self.cwnd = INITIAL_PACKETS * mtu
        self.ssthresh = float("inf")
        self.state = STARTUP
        self._pacing_gain = self._window_gain = HIGH_GAIN
        self._rates: deque[tuple[int, float]] = deque()  # (round, rate), rates falling
        self._round = 0
        self._round_end = 0
        self._min_rtt_s = float("inf")
        self._min_rtt_at = 0.0
        self._full_rate = 0.0
        self._full_rounds = 0
        self._phase = 0
        self._phase_at = 0.0
        self._probe_rtt_until = 0.0
        self._before_probe = 0

    def __repr__(self) -> str:
        return (
            f"<Bbr {self.state} rate={self.bandwidth / 1e6:.3f} MB/s "
            f"rtt={self._min_rtt_s * 1000:.2f} ms cwnd={self.cwnd}>"
        )

    @property
    def bandwidth(self) -> float:
        """The bottleneck's rate in bytes a second, as far as it is known; 0 at first."""
        return self._rates[0][1] if self._rates else 0.0

    @property
    def pacing_rate(self) -> float:
        """See CongestionController."""
        if not self._rates:
            return HIGH_GAIN * self.cwnd / self.rtt.smoothed
        return self._pacing_gain * self.bandwidth

    def on_acknowledged(self, acked: Acked) -> None:
        """See CongestionController."""
        new_round = acked.delivered_before >= self._round_end
        if new_round:
            self._round += 1
            self._round_end = acked.delivered
        self._take_rate(acked)
        if new_round:
            self._look_for_full_pipe(acked)
        self._take_rtt(acked)
        self._move_on(acked)
        self._set_window(acked)

    def _take_rate(self, acked: Acked) -> None:
        rates = self._rates
        # A flow that had nothing to send tells only that the path is at least so fast.
        if acked.rate and (acked.limited or acked.rate > self.bandwidth):
            while rates and rates[-1][1] <= acked.rate:
                rates.pop()
            rates.append((self._round, acked.rate))
        while rates and len(rates) > 1 and rates[0][0] <= self._round - BANDWIDTH_ROUNDS:
            rates.popleft()

    def _look_for_full_pipe(self, acked: Acked) -> None:
        if self.state != STARTUP or not acked.limited:
            return
        if self.bandwidth >= self._full_rate * FULL_GROWTH:
            self._full_rate, self._full_rounds = self.bandwidth, 0
            return
        self._full_rounds += 1
        if self._full_rounds >= FULL_ROUNDS:
            self.state, self._pacing_gain = DRAIN, 1 / HIGH_GAIN

    def _take_rtt(self, acked: Acked) -> None:
        expired = acked.now > self._min_rtt_at + RTT_EXPIRES_S
        if self.rtt.latest <= self._min_rtt_s or expired:
            self._min_rtt_s, self._min_rtt_at = self.rtt.latest, acked.now
        if expired and self.state not in (PROBE_RTT, STARTUP):
            self.state, self._pacing_gain = PROBE_RTT, 1.0
            self._before_probe = self.cwnd
            self._probe_rtt_until = acked.now + max(PROBE_RTT_S, self._min_rtt_s)

    def _move_on(self, acked: Acked) -> None:
        now = acked.now
        if self.state == DRAIN and acked.in_flight <= self._product(1.0):
            self._begin_probe_bandwidth(now)
        elif self.state == PROBE_RTT and now >= self._probe_rtt_until:
            self._min_rtt_at = now
            self.cwnd = max(self.cwnd, self._before_probe)
            self._begin_probe_bandwidth(now)
        elif self.state == PROBE_BW:
            gain = CYCLE[self._phase]
            over = now - self._phase_at > self._min_rtt_s
            if gain < 1:  # until what the probe before has queued is gone
                over = over or acked.in_flight <= self._product(1.0)
            if over:
                self._phase = (self._phase + 1) % len(CYCLE)
                self._phase_at, self._pacing_gain = now, CYCLE[self._phase]

    def _begin_probe_bandwidth(self, now: float) -> None:
        self.state, self._window_gain = PROBE_BW, WINDOW_GAIN
        # Not with 1.25 at once: begin behind the probe (§4.3.4.3 draws; one choice is as good).
        self._phase, self._phase_at, self._pacing_gain = 2, now, CYCLE[2]

    def _product(self, gain: float) -> float:
        return gain * self.bandwidth * self._min_rtt_s

    def _set_window(self, acked: Acked) -> None:
        floor = MINIMUM_PACKETS * self.mtu
        if self.state == PROBE_RTT:
            self.cwnd = floor
            return
        target = int(self._product(self._window_gain)) + 3 * self.mtu
        if self.state == STARTUP and self._full_rounds < FULL_ROUNDS:
            if self.cwnd < target or acked.delivered < INITIAL_PACKETS * self.mtu:
                self.cwnd += acked.size
        else:
            self.cwnd = min(self.cwnd + acked.size, target)
        self.cwnd = max(self.cwnd, floor)

    def on_lost(self, sent_at: float, now: float, in_flight: int) -> None:
        """See CongestionController: loss is no part of the model."""

    def on_persistent_congestion(self) -> None:
        """See CongestionController."""
        self.cwnd = MINIMUM_PACKETS * self.mtu

    def on_mtu(self, mtu: int) -> None:
        """See CongestionController."""
        self.mtu = mtu
        self.cwnd = max(self.cwnd, MINIMUM_PACKETS * mtu)
