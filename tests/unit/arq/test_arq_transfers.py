"""Senders and receivers over a link: exact times, and whatever the link does, the bytes."""

from __future__ import annotations

import random

import pytest
from arq_kit import HOSTILE, PAYLOAD, RTT_S, SEGMENT_S, carries_everything, message, path, send
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.arq import formulas
from netstack.arq.buffering import BufferingReceiver
from netstack.arq.fixed_window import FixedWindowSender
from netstack.arq.flushing import FlushingReceiver
from netstack.arq.in_order import InOrderReceiver
from netstack.arq.link import Link, transfer
from netstack.arq.lock_step import LockStepSender
from netstack.arq.nak import NakReceiver
from netstack.arq.segment import cut
from netstack.arq.sliding_window import SlidingWindowSender
from netstack.arq.strategies import RECEIVERS, SENDERS
from netstack.runtime.policy import LinkPolicy
from netstack.transport.rtt import FixedTimer

RATE = PAYLOAD / SEGMENT_S
NEVER = LinkPolicy(cut=True)


class Dice:
    """Loses the datagrams of one direction that it is told to, by their place in the order."""

    def __init__(self, *lost: int) -> None:
        self._lost = lost
        self._count = -1

    def random(self) -> float:
        self._count += 1
        return 0.0 if self._count in self._lost else 1.0


def lossy(*lost: int) -> Link:
    """The lecture's path, which loses the n-th segments sent, from 0, and no answers."""
    link = path()
    clean = link.there.policy
    link.there = type(link.there)(clean.changed({"loss": 0.5}), Dice(*lost))
    return link


class TestExactTimes:
    """Without loss every segment leaves and arrives at a time that paper gives."""

    @pytest.mark.parametrize("count", [1, 2, 10])
    def test_lock_step_takes_a_round_trip_a_segment(self, count):
        data, segments = message(count)
        result = send(LockStepSender(segments), InOrderReceiver(), path())
        assert result.data == data
        assert result.time_s == pytest.approx(count * RTT_S)
        assert result.throughput == pytest.approx(formulas.lock_step(PAYLOAD, RTT_S))

    @pytest.mark.parametrize("window", [1, 3, 10, 70, 100])
    def test_a_fixed_window_takes_a_round_trip_and_its_own_length_a_batch(self, window):
        data, segments = message(3 * window)
        result = send(FixedWindowSender(segments, window), InOrderReceiver(), path())
        assert result.data == data
        assert result.time_s == pytest.approx(3 * (RTT_S + (window - 1) * SEGMENT_S))
        paper = formulas.fixed_window(PAYLOAD, RTT_S, window, SEGMENT_S)
        assert result.throughput == pytest.approx(paper)

    @pytest.mark.parametrize("window", [1, 3, 35, 69, 70, 71, 140])
    def test_a_sliding_window_sends_a_window_a_round_trip_until_the_line_is_full(self, window):
        data, segments = message(421)
        result = send(SlidingWindowSender(segments, window), InOrderReceiver(), path())
        assert result.data == data
        rounds, rest = divmod(420, window)
        slow, full = rounds * RTT_S + rest * SEGMENT_S, 420 * SEGMENT_S
        assert result.time_s == pytest.approx(max(slow, full) + RTT_S)
        # After the first round trip, the formula to the letter.
        if 420 % window == 0:
            paper = formulas.sliding_window(PAYLOAD, RTT_S, window, RATE)
            assert 420 * PAYLOAD / (result.time_s - RTT_S) == pytest.approx(paper)

    def test_the_lectures_example_is_seventy_segments(self):
        assert formulas.window_for(PAYLOAD, RTT_S, RATE) == pytest.approx(70)
        assert round(RTT_S * RATE) == 35_000

    @pytest.mark.parametrize(
        ("kind", "again", "timeouts"),
        [
            (InOrderReceiver, 10, 1),  # a window
            (BufferingReceiver, 1, 1),
            (FlushingReceiver, 6, 1),  # 4 to 7 filled it, 8 flushed it, 9 to 12 fill it again
            (NakReceiver, 1, 0),
        ],
    )
    def test_one_loss_costs_each_receiver_its_own_price(self, kind, again, timeouts):
        data, segments = message(20)
        receiver = kind(4 * PAYLOAD) if kind is FlushingReceiver else kind()
        sender = SlidingWindowSender(segments, 10, timer=FixedTimer(0.1))
        result = send(sender, receiver, lossy(3))
        assert result.data == data
        assert (result.bytes_sent_again, result.timeouts) == (again * PAYLOAD, timeouts)

    def test_a_nak_saves_the_wait_for_the_timer(self):
        _, segments = message(20)
        times = {}
        for kind in (BufferingReceiver, NakReceiver):
            sender = SlidingWindowSender(segments, 20, timer=FixedTimer(0.1))
            times[kind] = send(sender, kind(), lossy(3)).time_s
        # The answer to segment 2 comes at 72 ms, and for 300 ms nothing moves.
        assert times[BufferingReceiver] == pytest.approx(0.072 + 0.3 + RTT_S)
        # Segment 4 is the next to arrive, and brings at 73 ms what is missing.
        assert times[NakReceiver] == pytest.approx(0.073 + RTT_S)

    def test_a_lost_nak_leaves_the_last_word_to_the_timer(self):
        data, segments = message(20)
        link = path()
        link.back = type(link.back)(link.back.policy.changed({"loss": 0.5}), Dice(3))
        link.there = lossy(3).there
        sender = SlidingWindowSender(segments, 20, timer=FixedTimer(0.1))
        result = send(sender, NakReceiver(), link)
        assert (result.data, result.timeouts) == (data, 1)


RTTS_S = (0.001, 0.005, 0.02, 0.07, 0.25)
WINDOWS = (1, 7, 70)


class TestRoundTripTimes:
    """Throughput against the round-trip time, for every sender: to the letter, without loss."""

    @pytest.mark.parametrize("rtt_s", RTTS_S)
    def test_lock_step_is_half_as_fast_over_twice_the_distance(self, rtt_s):
        result = send(LockStepSender(message(8)[1]), InOrderReceiver(), path(rtt_s=rtt_s))
        assert result.throughput == pytest.approx(formulas.lock_step(PAYLOAD, rtt_s))
        assert result.throughput * rtt_s == pytest.approx(PAYLOAD)

    @pytest.mark.parametrize("window", WINDOWS)
    @pytest.mark.parametrize("rtt_s", RTTS_S)
    def test_a_fixed_window_pauses_for_the_whole_distance(self, rtt_s, window):
        sender = FixedWindowSender(message(3 * window)[1], window)
        result = send(sender, InOrderReceiver(), path(rtt_s=rtt_s))
        paper = formulas.fixed_window(PAYLOAD, rtt_s, window, SEGMENT_S)
        assert result.throughput == pytest.approx(paper)

    @pytest.mark.parametrize("window", WINDOWS)
    @pytest.mark.parametrize("rtt_s", RTTS_S)
    def test_a_sliding_window_is_as_fast_as_the_line_up_to_its_knee(self, rtt_s, window):
        count = 4 * window
        sender = SlidingWindowSender(message(count + 1)[1], window)
        result = send(sender, InOrderReceiver(), path(rtt_s=rtt_s))
        paper = formulas.sliding_window(PAYLOAD, rtt_s, window, RATE)
        assert count * PAYLOAD / (result.time_s - rtt_s) == pytest.approx(paper)
        knee = formulas.window_for(PAYLOAD, rtt_s, RATE)
        assert (paper == pytest.approx(RATE)) == (window >= knee * 0.999)


class TestLoss:
    """Throughput against loss, for the senders that have a window: in order only, no answer lost.

    Each loss that matters is one time-out. Their number is left to the dice; what they cost is not.
    """

    RTO_S = 0.3

    def throughput(self, kind, window, rtt_s, loss):
        """What was reached, and the loss that there really was."""
        count = int(200 / loss)
        segments = cut(1, bytes(count * PAYLOAD), PAYLOAD)
        sender = kind(segments, window, timer=FixedTimer(self.RTO_S / 3), tries_max=30)
        result = transfer(sender, InOrderReceiver(), path(3, rtt_s=rtt_s, loss_there=loss))
        assert result.gave_up is None
        met = result.timeouts / (result.timeouts + count)
        assert met == pytest.approx(loss, rel=0.25)
        return result.throughput, met

    @pytest.mark.parametrize("loss", [0.05, 0.1, 0.3])
    @pytest.mark.parametrize("rtt_s", [0.005, 0.02, 0.07])
    @pytest.mark.parametrize("window", [2, 7, 20])
    def test_a_fixed_window_waits_for_each_loss(self, window, rtt_s, loss):
        found, met = self.throughput(FixedWindowSender, window, rtt_s, loss)
        paper = formulas.fixed_window(PAYLOAD, rtt_s, window, SEGMENT_S, met, self.RTO_S)
        assert found == pytest.approx(paper, rel=0.02)

    @pytest.mark.parametrize("loss", [0.05, 0.1, 0.3])
    @pytest.mark.parametrize("rtt_s", [0.005, 0.02, 0.07])
    @pytest.mark.parametrize("window", [2, 7, 20])
    def test_a_sliding_window_goes_back_for_each_loss(self, window, rtt_s, loss):
        found, met = self.throughput(SlidingWindowSender, window, rtt_s, loss)
        paper = formulas.sliding_window(PAYLOAD, rtt_s, window, RATE, met, self.RTO_S)
        assert found == pytest.approx(paper, rel=0.02)

    def test_a_window_of_one_is_lock_step(self):
        paper = formulas.lock_step(PAYLOAD, RTT_S, 0.1, self.RTO_S)
        for formula, line in ((formulas.fixed_window, SEGMENT_S), (formulas.sliding_window, RATE)):
            assert formula(PAYLOAD, RTT_S, 1, line, 0.1, self.RTO_S) == pytest.approx(paper)

    def test_without_loss_the_formulas_are_the_simple_ones(self):
        simple = formulas.sliding_window(PAYLOAD, RTT_S, 7, RATE)
        nearly = formulas.sliding_window(PAYLOAD, RTT_S, 7, RATE, 1e-9, self.RTO_S)
        assert nearly == pytest.approx(simple, rel=1e-5)


class TestFormulas:
    @pytest.mark.parametrize("loss", [0.05, 0.2])
    def test_lock_step_under_loss_is_as_fast_as_on_paper(self, loss):
        segments = cut(1, bytes(3000 * PAYLOAD), PAYLOAD)
        sender = LockStepSender(segments, timer=FixedTimer(0.1), tries_max=30)
        one_way = 1 - (1 - loss) ** 0.5
        result = transfer(sender, InOrderReceiver(), path(7, loss=one_way))
        paper = formulas.lock_step(PAYLOAD, RTT_S, loss, rto_s=0.3)
        assert result.throughput == pytest.approx(paper, rel=0.05)

    def test_a_buffer_is_sent_again_what_was_lost(self):
        segments = cut(1, bytes(4000 * PAYLOAD), PAYLOAD)
        sender = SlidingWindowSender(segments, 70, tries_max=30)
        result = transfer(sender, BufferingReceiver(), path(7, loss=0.03))
        paper = formulas.sent_again(4000 * PAYLOAD, 0.03)
        assert result.bytes_sent_again == pytest.approx(paper, rel=0.2)
        assert 60 * PAYLOAD <= result.high_water_bytes <= 69 * PAYLOAD

    def test_efficiencies_of_the_textbook_are_the_same_formulas(self):
        """U = (1 - p) / (1 + 2a), with a = propagation / t and a time-out of one round trip."""
        a = (RTT_S - SEGMENT_S) / 2 / SEGMENT_S
        paper = formulas.lock_step(PAYLOAD, RTT_S, 0.2, rto_s=RTT_S) / RATE
        assert paper == pytest.approx((1 - 0.2) / (1 + 2 * a))
        paper = formulas.sliding_window(PAYLOAD, RTT_S, 35, RATE) / RATE
        assert paper == pytest.approx(35 / (1 + 2 * a))


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("sender", SENDERS)
class TestAnyTwo:
    @pytest.mark.parametrize("seed", range(3))
    def test_carry_everything_over_a_hostile_link(self, sender, receiver, seed):
        window = 1 if sender == "lock-step" else 20

        def make_sender(segments):
            return SENDERS[sender](segments, window, tries_max=30)

        carries_everything(make_sender, lambda: RECEIVERS[receiver](100), seed)

    def test_one_end_that_is_gone_is_told_in_the_end(self, sender, receiver):
        _, segments = message(5)
        alone = Link(NEVER, LinkPolicy(), random.Random(1))
        result = send(SENDERS[sender](segments, 1), RECEIVERS[receiver](), alone)
        assert str(result.gave_up).startswith("message 914: gave up after 6 tries, segment 1 of 5")
        assert (result.time_s, result.throughput, result.data) == (63.0, 0.0, b"")

    def test_a_message_that_arrived_may_be_given_up_for_want_of_an_answer(self, sender, receiver):
        data, segments = message(1)
        deaf = Link(LinkPolicy(), NEVER, random.Random(1))
        result = send(SENDERS[sender](segments, 1), RECEIVERS[receiver](), deaf)
        assert result.gave_up is not None
        assert (result.data, result.duplicates) == (data, 5)


CHANCES = st.floats(0, 0.6)
POLICIES = st.builds(
    LinkPolicy,
    loss=CHANCES,
    duplicate=CHANCES,
    reorder=CHANCES,
    corrupt=st.floats(0, 0.3),
    delay_s=st.floats(0, 0.2),
    jitter_s=st.floats(0, 0.1),
    reorder_s=st.floats(0, 0.3),
    rate_bytes_s=st.sampled_from([0.0, 2000.0, 50_000.0]),
    queue_bytes=st.sampled_from([60, 500, 65_536]),
)


@settings(max_examples=500, deadline=None)
@given(
    sender=st.sampled_from(sorted(SENDERS)),
    receiver=st.sampled_from(sorted(RECEIVERS)),
    there=POLICIES,
    back=POLICIES,
    content=st.binary(max_size=120),
    payload=st.integers(1, 40),
    window=st.integers(1, 30),
    tries=st.integers(1, 6),
    buffer=st.integers(0, 60),
    seed=st.integers(0, 2**32),
)
def test_whatever_the_link_does_bytes_written_are_bytes_read_once_or_the_sender_gave_up(
    sender, receiver, there, back, content, payload, window, tries, buffer, seed
):
    window = 1 if sender == "lock-step" else window
    strategy = SENDERS[sender](cut(914, content, payload), window, tries_max=tries)
    link = Link(there, back, random.Random(seed))
    result = send(strategy, RECEIVERS[receiver](buffer), link)
    assert content.startswith(result.data)
    assert result.gave_up is not None or result.data == content


def test_an_answer_that_comes_just_in_time_is_in_time():
    _, segments = message(1)
    link = Link(LinkPolicy(delay_s=0.5), LinkPolicy(delay_s=0.5), random.Random(1))
    result = send(LockStepSender(segments), InOrderReceiver(), link)
    assert (result.time_s, result.timeouts, result.bytes_sent_again) == (1.0, 0, 0)


def test_what_arrives_when_all_is_over_does_no_harm():
    data, segments = message(1)
    sender = LockStepSender(segments, timer=FixedTimer(0.02))  # 60 ms: too short for this path
    result = send(sender, InOrderReceiver(), path())
    assert (result.data, result.duplicates, result.timeouts) == (data, 1, 1)
    assert result.time_s == pytest.approx(RTT_S)


def test_a_seed_is_one_history():
    _, segments = message(300)

    def history(seed):
        sender = SlidingWindowSender(segments, 20, tries_max=30)
        return send(sender, NakReceiver(), path(seed, **HOSTILE))

    assert history(1) == history(1) != history(2)
