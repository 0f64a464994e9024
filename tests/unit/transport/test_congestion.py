"""Congestion controllers against hand-made acknowledgements, each rule of each by its number."""

from __future__ import annotations

import math

import pytest

from netstack.transport.congestion.aimd import Aiad, Aimd, Miad, Mimd
from netstack.transport.congestion.base import Acked
from netstack.transport.congestion.bbr import DRAIN, PROBE_BW, PROBE_RTT, STARTUP, Bbr
from netstack.transport.congestion.cubic import BETA, C, Cubic
from netstack.transport.congestion.dctcp import Dctcp, G
from netstack.transport.congestion.fixed import FixedWindow, LockStep, SlidingWindow, window_of
from netstack.transport.congestion.newreno import NewReno
from netstack.transport.controllers import CONTROLLERS, controller
from netstack.transport.rtt import RttEstimator

MTU = 1200
RTT_S = 0.1


class Path:
    """Feeds a controller: a window a round trip, all of it acknowledged unless told otherwise."""

    def __init__(self, make, rtt_s: float = RTT_S) -> None:
        self.rtt = RttEstimator(rtt_s)
        self.rtt.sample(rtt_s)
        self.controller = make(MTU, self.rtt)
        self.now = 1.0
        self.delivered = 0
        self.rate = 0.0

    @property
    def packets(self) -> float:
        return self.controller.cwnd / MTU

    def round(
        self,
        *,
        marked: float = 0.0,
        limited: bool = True,
        rtt_s: float | None = None,
        size: int = 0,
    ) -> None:
        """One round trip: packet by packet, as many as the window had when it began."""
        if rtt_s is not None:
            self.rtt.sample(rtt_s)
        sent_at, before = self.now, self.delivered
        self.now += self.rtt.latest
        window = size or self.controller.cwnd
        for left in range(window - MTU, -1, -MTU):
            self.delivered += MTU
            self.controller.on_acknowledged(
                Acked(
                    self.now,
                    MTU,
                    sent_at,
                    limited,
                    left,
                    marked,
                    self.delivered,
                    before,
                    self.rate,
                )
            )

    def lose(self) -> None:
        self.controller.on_lost(self.now - 0.001, self.now, 0)
        self.now += 0.001


class TestNewReno:
    def test_slow_start_doubles_a_window(self):
        path = Path(NewReno)
        path.round()
        assert path.packets == 20

    def test_avoidance_adds_one_packet_a_window(self):
        path = Path(NewReno)
        path.lose()
        path.round()
        path.round()
        assert path.packets == 5 + 2

    def test_all_losses_of_a_round_trip_halve_once(self):
        path = Path(NewReno)
        for _ in range(5):
            path.controller.on_lost(1.0, 1.1, 0)
        assert path.packets == 5
        path.controller.on_lost(1.2, 1.3, 0)
        assert path.packets == 2.5

    def test_a_mark_halves_like_a_loss(self):
        path = Path(NewReno)
        path.round(marked=1.0)
        assert path.packets == 5

    def test_a_window_that_is_not_used_does_not_grow(self):
        path = Path(NewReno)
        path.round(limited=False)
        assert path.packets == 10

    def test_never_below_two_packets(self):
        path = Path(NewReno)
        for _ in range(20):
            path.lose()
        assert path.packets == 2
        path.controller.on_persistent_congestion()
        assert path.packets == 2
        assert repr(path.controller).startswith("<NewReno avoidance cwnd=2400")


class TestHyStart:
    def test_slow_start_ends_when_the_round_trip_grows(self):
        path = Path(NewReno)
        rtt_s = RTT_S
        rounds = 0
        while path.controller.ssthresh == math.inf and rounds < 30:
            path.round(rtt_s=rtt_s, size=20 * MTU)
            rtt_s += 0.02  # the queue fills
            rounds += 1
        assert 6 <= rounds <= 12

    def test_jitter_does_not_end_it(self):
        path = Path(NewReno)
        for i in range(20):
            path.round(rtt_s=RTT_S + 0.03 * (i % 2), size=20 * MTU)
        assert path.controller.ssthresh == math.inf

    def test_a_steady_path_doubles_as_ever(self):
        path = Path(NewReno)
        for _ in range(5):
            path.round(rtt_s=RTT_S)
        assert path.packets == 320


def fills_the_queue(path: Path) -> None:
    rtt_s = RTT_S
    while path.controller.ssthresh == math.inf:
        path.round(rtt_s=rtt_s, size=20 * MTU)
        rtt_s += 0.02


def loses(path: Path) -> None:
    for _ in range(4):
        path.round()
    path.lose()


FIRST_SLOW_START_ENDS = [fills_the_queue, loses]


class TestAfterPersistentCongestion:
    """Slow start up to where it was; HyStart++ is for the first one only (RFC 9406 §4.3)."""

    @pytest.mark.parametrize("end", FIRST_SLOW_START_ENDS)
    @pytest.mark.parametrize("make", [NewReno, Cubic, Dctcp])
    def test_slow_start_goes_up_to_where_it_was(self, make, end):
        path = Path(make)
        end(path)
        was = path.controller.ssthresh
        assert 40 * MTU < was < math.inf
        path.controller.on_persistent_congestion()
        expected = 2
        rtt_s = path.rtt.latest
        while 2 * expected * MTU < was:
            assert path.packets == expected
            path.round(rtt_s=rtt_s)
            rtt_s += 0.02  # as a queue would grow: a second HyStart++ would take that for the end
            expected *= 2
        assert expected >= 32
        assert path.controller.ssthresh == was
        path.round()
        assert was <= path.controller.cwnd < was * 1.5
        assert path.controller.ssthresh == was


class TestCubic:
    def after_a_loss(self, packets: int = 1000) -> Path:
        path = Path(Cubic)
        path.controller.cwnd = packets * MTU
        path.lose()
        return path

    def test_a_loss_takes_three_tenths(self):
        assert self.after_a_loss().packets == 700

    def test_it_is_back_where_the_loss_was_after_k_seconds(self):
        path = self.after_a_loss()
        k_s = (1000 * (1 - BETA) / C) ** (1 / 3)
        began = path.now
        while path.now - began < k_s:
            path.round()
        assert path.packets == pytest.approx(1000, rel=0.02)

    def test_it_is_flat_around_the_old_limit_and_bold_beyond(self):
        path = self.after_a_loss()
        k_s = (1000 * (1 - BETA) / C) ** (1 / 3)
        growth = []
        for _ in range(int(2 * k_s / RTT_S)):
            before = path.packets
            path.round()
            growth.append(path.packets - before)
        third = len(growth) // 3
        assert sum(growth[third : 2 * third]) < 0.3 * sum(growth[:third])
        assert sum(growth[third : 2 * third]) < 0.3 * sum(growth[2 * third :])

    def test_on_short_paths_it_is_as_fast_as_reno(self):
        cubic, reno = self.after_a_loss(20), Path(NewReno)
        cubic = Path(Cubic, 0.001)
        for path in (cubic, reno):
            path.controller.cwnd = 20 * MTU
            path.lose()
        for _ in range(40):
            cubic.round()
            reno.round()
        assert cubic.packets >= 0.9 * reno.packets

    def test_a_flow_that_lost_twice_makes_room(self):
        """Fast convergence: it aims lower than where it was."""
        path = self.after_a_loss()
        path.round()
        path.lose()
        assert path.controller._w_max < path.packets / BETA


class TestDctcp:
    def test_alpha_follows_the_share_of_marks(self):
        """The trace by hand: alpha <- (1 - g) alpha + g F."""
        path = Path(Dctcp)
        path.controller.on_marked(Acked(1.0, MTU, 1.0, True, 0, 1.0, 0, 0, 0.0))
        alpha = 1.0
        for share in (0.0, 0.0, 0.5, 1.0, 0.25):
            path.round(marked=share)
            path.now += 0.001
        # Each round is judged when the next begins: five rounds, five judgements of what was seen.
        path.round()
        for share in (0.0, 0.0, 0.5, 1.0, 0.25):
            alpha = (1 - G) * alpha + G * share
        assert path.controller.alpha == pytest.approx(alpha, rel=0.1)

    def test_few_marks_take_little(self):
        path = Path(Dctcp)
        path.controller.cwnd = 100 * MTU
        path.controller.ssthresh = path.controller.cwnd
        path.controller.alpha = 0.1
        path.round(marked=0.1)
        path.round(marked=0.1)
        assert 90 <= path.packets <= 99

    def test_a_loss_halves_as_ever(self):
        path = Path(Dctcp)
        path.lose()
        assert path.packets == 5


class TestTaughtWindows:
    @pytest.mark.parametrize(
        ("make", "good", "bad"),
        [(Aimd, 11, 5.5), (Aiad, 11, 10), (Mimd, 11, 5.5), (Miad, 11, 10)],
    )
    def test_one_step_a_round_trip(self, make, good, bad):
        path = Path(make)
        path.controller.cwnd = 10 * MTU
        path.round()
        assert path.packets == pytest.approx(good)
        path.lose()
        path.round()
        assert path.packets == pytest.approx(bad)

    def test_it_begins_with_one_packet_and_knows_no_slow_start(self):
        path = Path(Aimd)
        for rounds in range(1, 6):
            assert path.packets == rounds
            path.round()

    def test_a_time_out_begins_again(self):
        path = Path(Aimd)
        path.controller.cwnd = 50 * MTU
        path.controller.on_persistent_congestion()
        assert path.packets == 1


class TestWindowsWithoutControl:
    def test_lock_step_is_one_packet(self):
        path = Path(LockStep)
        path.round()
        path.lose()
        assert path.packets == 1

    def test_a_sliding_window_stays(self):
        path = Path(window_of(SlidingWindow, 70))
        path.round()
        path.lose()
        assert path.packets == 70

    def test_a_fixed_window_waits_for_all_of_its_batch(self):
        controller = window_of(FixedWindow, 3)(MTU, RttEstimator(RTT_S))
        for left, window in ((2, 2), (1, 1), (0, 3)):
            controller.on_acknowledged(Acked(1.0, MTU, 0.9, True, left * MTU, 0.0, 0, 0, 0.0))
            assert controller.cwnd == window * MTU


class TestBbr:
    def path(self) -> Path:
        path = Path(Bbr)
        path.rate = 1_000_000.0
        return path

    def test_it_finds_the_rate_drains_and_probes(self):
        path = self.path()
        states = []
        for _ in range(12):
            path.round(size=50 * MTU)
            states.append(path.controller.state)
        assert states[0] == STARTUP
        assert DRAIN in states or PROBE_BW in states
        assert states[-1] == PROBE_BW
        assert path.controller.bandwidth == 1_000_000.0

    def test_the_window_is_twice_what_the_path_holds(self):
        path = self.path()
        for _ in range(20):
            path.round(size=50 * MTU)
        assert path.controller.cwnd == pytest.approx(2 * 1_000_000 * RTT_S, rel=0.1)

    def test_loss_is_no_news(self):
        path = self.path()
        for _ in range(20):
            path.round(size=50 * MTU)
        before = path.controller.cwnd
        path.lose()
        assert path.controller.cwnd == before

    def test_gains_go_round_the_cycle(self):
        path, gains = self.path(), set()
        bbr = path.controller
        take = bbr.on_acknowledged

        def watched(acked: Acked) -> None:
            take(acked)
            gains.add(round(bbr.pacing_rate / bbr.bandwidth, 2))

        bbr.on_acknowledged = watched
        for _ in range(30):
            path.round(size=50 * MTU)
        assert {1.25, 0.75, 1.0} <= gains

    def test_after_ten_seconds_it_looks_for_a_shorter_round_trip(self):
        path = self.path()
        windows = {}
        for _ in range(140):
            path.round(size=50 * MTU, rtt_s=RTT_S * (1.01 if path.now > 3 else 1))
            windows.setdefault(path.controller.state, []).append(path.packets)
        assert PROBE_RTT in windows, "it looks"
        assert min(windows[PROBE_RTT]) == 4
        assert path.controller.state == PROBE_BW

    def test_a_flow_with_little_to_send_does_not_lower_the_estimate(self):
        path = self.path()
        for _ in range(10):
            path.round(size=50 * MTU)
        path.rate = 1_000.0
        for _ in range(30):
            path.round(size=2 * MTU, limited=False)
        assert path.controller.bandwidth == 1_000_000.0


class TestNames:
    @pytest.mark.parametrize("name", CONTROLLERS)
    def test_each_controller_keeps_the_interface(self, name):
        path = Path(controller(name))
        assert path.controller.cwnd >= MTU
        assert path.controller.pacing_rate > 0
        path.round()
        path.lose()
        path.controller.on_persistent_congestion()
        path.controller.on_mtu(9000)
        assert path.controller.cwnd > 0
        assert type(path.controller).__name__ in repr(path.controller)

    def test_a_size_is_part_of_the_name(self):
        assert Path(controller("sliding:70")).packets == 70

    @pytest.mark.parametrize("name", ["tahoe", "", "sliding:", "sliding:0", "sliding:x", "bbr:3"])
    def test_an_unknown_name_is_told_what_there_is(self, name):
        with pytest.raises(ValueError, match="there are newreno, cubic"):
            controller(name)
