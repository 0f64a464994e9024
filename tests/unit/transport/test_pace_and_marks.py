"""Pacing, marks of congestion and what is owed an acknowledgement, one class each."""

from __future__ import annotations

import pytest

from netstack.runtime.endpoint import CE, ECT0, NOT_ECT
from netstack.transport import frames as f
from netstack.transport.acks import APART_S, AckState
from netstack.transport.config import TransportConfig
from netstack.transport.ecn import EcnPath
from netstack.transport.pacing import BURST_PACKETS, BURST_S, Pacer
from netstack.transport.rtt import FixedTimer

MTU = 1200


class TestPacer:
    def test_a_burst_may_leave_at_once_and_then_the_rate_rules(self):
        pacer = Pacer(MTU)
        rate = 1_200_000.0  # a packet a millisecond
        sent = 0
        for step in range(1000):
            now = 1.0 + step / 1000
            while pacer.allowance(now, rate, MTU) >= MTU:
                pacer.sent(MTU)
                sent += 1
        assert sent == pytest.approx(1000 + BURST_PACKETS, abs=1)

    def test_it_says_when_the_next_packet_may_leave(self):
        pacer = Pacer(MTU)
        rate = 1_200_000.0
        pacer.sent(int(pacer.allowance(1.0, rate, MTU)))
        at = pacer.next_at(rate, MTU)
        assert at == pytest.approx(1.001)
        assert pacer.allowance(at, rate, MTU) >= MTU * 0.999

    def test_idle_time_is_not_saved_up(self):
        pacer = Pacer(MTU)
        assert pacer.allowance(1000.0, 1_200_000.0, MTU) == BURST_PACKETS * MTU

    def test_a_fast_path_gets_bursts_of_a_timers_length(self):
        assert Pacer(MTU).allowance(1000.0, 1e9, MTU) == 1e9 * BURST_S

    def test_without_a_rate_everything_may_leave(self):
        pacer = Pacer(MTU)
        for _ in range(10):
            assert pacer.allowance(1.0, float("inf"), MTU) == float("inf")


class TestEcnPath:
    def test_marks_are_the_growth_of_the_peers_count(self):
        path = EcnPath(wanted=True)
        assert path.codepoint == ECT0
        assert path.acknowledged(10, (10, 0)) == 0
        assert path.capable
        assert path.acknowledged(10, (17, 3)) == 3
        assert path.acknowledged(10, (20, 10)) == 7
        assert path.marks == 10

    @pytest.mark.parametrize(
        ("counts", "why"),
        [
            (None, "the field was erased on the way"),
            ((4, 0), "some came without the field"),
            ((20, -1), "a count that went back"),
        ],
    )
    def test_counts_that_do_not_add_up_end_the_marking(self, counts, why):
        path = EcnPath(wanted=True)
        assert path.acknowledged(5, counts) == 0, why
        assert path.codepoint == NOT_ECT
        assert path.acknowledged(5, (100, 100)) == 0

    def test_packets_that_ask_for_no_acknowledgement_are_counted_too(self):
        path = EcnPath(wanted=True)
        assert path.acknowledged(5, (9, 0)) == 0
        assert path.capable

    def test_who_does_not_want_it_sends_nothing(self):
        assert EcnPath(wanted=False).codepoint == NOT_ECT


class TestAckState:
    def test_every_second_packet_is_acknowledged_at_once(self):
        acks = AckState(0.025)
        acks.arrived(0, NOT_ECT, 1.0, eliciting=True)
        assert not acks.is_due(1.0)
        assert acks.is_due(1.025)
        acks.arrived(1, NOT_ECT, 1.001, eliciting=True)
        assert acks.is_due(1.001)
        acks.sent(1.001)
        assert not acks.is_due(2.0)

    def test_a_packet_that_leaves_carries_one_but_not_for_each_of_a_quick_exchange(self):
        acks = AckState(0.025)
        assert not acks.rides(1.0)
        acks.arrived(0, NOT_ECT, 1.0, eliciting=True)
        assert acks.rides(1.0)
        acks.sent(1.0)
        acks.arrived(1, NOT_ECT, 1.0, eliciting=True)
        assert not acks.rides(1.0 + APART_S / 2)
        assert acks.rides(1.0 + 2 * APART_S)
        acks.arrived(2, NOT_ECT, 1.0, eliciting=True)
        assert acks.rides(1.0 + APART_S / 2)

    def test_an_acknowledgement_is_not_acknowledged(self):
        acks = AckState(0.025)
        for number in range(10):
            acks.arrived(number, NOT_ECT, 1.0, eliciting=False)
        assert not acks.is_due(2.0)
        assert acks.owed == 0

    @pytest.mark.parametrize(("number", "mark"), [(2, NOT_ECT), (1, CE)])
    def test_a_gap_and_a_mark_are_told_at_once(self, number, mark):
        acks = AckState(0.025)
        acks.arrived(0, NOT_ECT, 1.0, eliciting=True)
        acks.sent(1.0)
        acks.arrived(number, mark, 1.0, eliciting=True)
        assert acks.is_due(1.0)

    def test_the_counts_are_told_once_there_are_any(self):
        acks = AckState(0.025)
        acks.arrived(0, NOT_ECT, 1.0, eliciting=True)
        assert acks.frame(1.0)[0] == f.ACK
        for number, mark in ((1, ECT0), (2, ECT0), (3, CE)):
            acks.arrived(number, mark, 1.0, eliciting=True)
        frame = acks.frame(1.0)
        assert frame[0] == f.ACK_ECN
        assert f.ECN_COUNTS.unpack(frame[-f.ECN_COUNTS.size :]) == (2, 1)
        acks.arrived(9, ECT0, 1.0, eliciting=True)  # now there are two ranges
        assert f.ECN_COUNTS.unpack(acks.frame(1.0)[-f.ECN_COUNTS.size :]) == (3, 1)

    def test_the_delay_is_that_of_the_newest_packet(self):
        acks = AckState(0.025)
        acks.arrived(0, NOT_ECT, 1.0, eliciting=True)
        acks.arrived(1, NOT_ECT, 2.0, eliciting=True)
        assert f.ACK_ONE.unpack(acks.frame(2.5))[1] == 500_000


def test_a_fixed_timer_learns_nothing_and_never_backs_off():
    timer = FixedTimer(0.1)
    before = timer.rto_s
    for _ in range(10):
        timer.sample(5.0)
    assert (timer.rto_s, timer.rto(6)) == (before, before)
    assert timer.smoothed > 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"congestion": "tahoe"}, "no congestion controller 'tahoe'"),
        ({"timer": "sundial"}, "no timer 'sundial'; there are rfc6298"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TransportConfig(**settings)
