"""The three senders: how far they go, how long they wait, when they stop. Exact times."""

from __future__ import annotations

import pytest
from arq_kit import (
    gives_up,
    indices,
    keeps_its_window,
    measures_a_path_that_became_slow,
    measures_only_what_is_certain,
    message,
    waits_for_the_whole_batch,
)

from netstack.arq.errors import GaveUp
from netstack.arq.fixed_window import FixedWindowSender
from netstack.arq.lock_step import LockStepSender
from netstack.arq.segment import WINDOW_MAX, Ack, Nak
from netstack.arq.sliding_window import SlidingWindowSender
from netstack.arq.strategies import SENDERS
from netstack.transport.rtt import FixedTimer, RttEstimator

SEGMENTS = message(12)[1]


def sliding(window: int = 4, **options) -> SlidingWindowSender:
    """One that has sent its first window at 0."""
    sender = SlidingWindowSender(SEGMENTS, window, **options)
    sender.start(0.0)
    sender.take_outputs()
    return sender


class TestWindow:
    @pytest.mark.parametrize("window", [1, 2, 7])
    @pytest.mark.parametrize("kind", [FixedWindowSender, SlidingWindowSender])
    def test_is_filled_and_never_exceeded(self, kind, window):
        keeps_its_window(kind, window)

    def test_of_lock_step_is_one(self):
        sender = LockStepSender(SEGMENTS)
        sender.start(0.0)
        assert indices(sender) == [0]
        sender.receive(Ack(914, 0, 0, 1), 0.07)
        assert indices(sender) == [1]
        with pytest.raises(ValueError, match="lock-step has a window of 1 segment, not 2"):
            LockStepSender(SEGMENTS, 2)

    def test_that_is_fixed_waits_for_all_of_its_batch(self):
        waits_for_the_whole_batch(FixedWindowSender)

    def test_that_slides_lets_one_out_for_each_that_is_acknowledged(self):
        sender = sliding(3)
        sender.receive(Ack(914, 0, 0, 1), 0.1)
        assert indices(sender) == [3]
        sender.receive(Ack(914, 1, 1, 3), 0.1)
        assert indices(sender) == [4, 5]

    def test_does_not_slide_over_a_hole_however_much_is_held_behind_it(self):
        """Lecture 20, item 2: 2 is lost, so the window stays at 2."""
        sender = sliding(4)
        sender.receive(Ack(914, 0, 0, 1), 0.1)
        for number, held in enumerate([(2,), (2, 3), (2, 3, 4)], 1):
            sender.receive(Ack(914, number, held[-1], 1, held), 0.1)
        assert indices(sender) == [4]
        assert (sender.next_index, sender.unsent) == (1, 5)
        sender.receive(Ack(914, 9, 1, 5), 0.2)
        assert indices(sender) == [5, 6, 7, 8]

    @pytest.mark.parametrize("window", [0, -1, WINDOW_MAX + 1])
    @pytest.mark.parametrize("kind", [FixedWindowSender, SlidingWindowSender])
    def test_has_a_size(self, kind, window):
        kind(SEGMENTS, WINDOW_MAX)
        with pytest.raises(ValueError, match=f"a window has 1 to 8192 segments, not {window}"):
            kind(SEGMENTS, window)

    @pytest.mark.parametrize("kind", SENDERS.values())
    def test_larger_than_the_message_is_the_message(self, kind):
        _, segments = message(1)
        sender = kind(segments, 1)
        sender.start(0.0)
        assert indices(sender) == [0]
        sender.receive(Ack(914, 0, 0, 1), 0.1)
        assert (sender.done, sender.next_deadline()) == (True, None)


class TestTimer:
    def test_waits_a_second_at_first_then_as_measured(self):
        sender = sliding()
        assert sender.next_deadline() == pytest.approx(1.0)
        sender.receive(Ack(914, 0, 0, 1), 0.1)  # RFC 6298 (2.2): 100 ms + 4 × 50 ms
        assert sender.next_deadline() == pytest.approx(0.1 + 0.3)

    def test_starts_anew_when_the_receiver_gets_further_and_not_when_it_only_holds_more(self):
        sender = sliding(timer=FixedTimer(0.1))
        assert sender.next_deadline() == pytest.approx(0.3)
        sender.receive(Ack(914, 0, 2, 0, (2,)), 0.1)
        assert sender.next_deadline() == pytest.approx(0.3)
        sender.receive(Ack(914, 1, 0, 1, (2,)), 0.2)
        assert sender.next_deadline() == pytest.approx(0.5)

    def test_does_nothing_before_its_time(self):
        sender = sliding(timer=FixedTimer(0.1))
        sender.on_deadline(0.299)
        assert (indices(sender), sender.timeouts) == ([], 0)
        sender.on_deadline(0.301)
        assert (indices(sender), sender.timeouts) == ([0, 1, 2, 3], 1)

    def test_sends_again_what_was_overtaken(self):
        sender = sliding(6)
        sender.receive(Ack(914, 0, 4, 0, (1, 2, 4)), 0.1)
        sender.on_deadline(1.0)
        assert indices(sender) == [0, 3]
        assert sender.bytes_sent_again == 1000

    def test_sends_again_what_the_receiver_held_and_threw_away(self):
        sender = sliding(6)
        sender.receive(Ack(914, 0, 4, 0, (1, 2, 4)), 0.1)
        sender.receive(Ack(914, 1, 5, 0), 0.1)
        sender.on_deadline(1.0)
        assert indices(sender) == [0, 1, 2, 3, 4, 5]

    def test_doubles_until_there_is_a_measurement(self):
        """RFC 6298 (5.5), and Karn's rule for when it ends."""
        sender = LockStepSender(SEGMENTS, timer=RttEstimator(1 / 3))
        sender.start(0.0)
        sender.on_deadline(1.0)
        assert sender.next_deadline() == pytest.approx(3.0)
        sender.on_deadline(3.0)
        assert sender.next_deadline() == pytest.approx(7.0)
        sender.receive(Ack(914, 0, 0, 1), 3.5)  # of which transmission?
        assert sender.next_deadline() == pytest.approx(7.5)
        sender.receive(Ack(914, 1, 1, 2), 3.6)
        assert sender.next_deadline() == pytest.approx(3.6 + 0.3)

    def test_measures_no_segment_that_was_sent_twice(self):
        measures_only_what_is_certain(LockStepSender)

    def test_learns_that_a_path_has_become_slow(self):
        measures_a_path_that_became_slow(LockStepSender)

    def test_measures_a_segment_once_though_its_answer_comes_twice(self):
        timer = RttEstimator(1 / 3)
        sender = sliding(timer=timer)
        sender.receive(Ack(914, 0, 2, 0, (2,)), 0.1)
        sender.receive(Ack(914, 0, 2, 0, (2,)), 0.5)
        assert (timer.samples, timer.latest) == (1, 0.1)


class TestNak:
    def test_is_obeyed_at_once_and_restarts_the_timer(self):
        sender = sliding(timer=FixedTimer(0.1))
        sender.receive(Ack(914, 0, 0, 1), 0.1)
        sender.take_outputs()
        sender.receive(Nak(914, (1, 3)), 0.15)
        assert indices(sender) == [1, 3]
        assert sender.bytes_sent_again == 1000
        assert sender.next_deadline() == pytest.approx(0.45)

    def test_for_what_is_acknowledged_held_or_not_sent_changes_nothing(self):
        sender = sliding()
        sender.receive(Ack(914, 0, 0, 1, (3,)), 0.1)
        sender.take_outputs()
        sender.receive(Nak(914, (0, 3, 5, 99)), 0.2)
        assert indices(sender) == []

    @pytest.mark.parametrize(("at", "sent"), [(0.299, []), (0.3, [1])])
    def test_that_comes_sooner_than_any_answer_can_speaks_of_an_earlier_transmission(
        self, at, sent
    ):
        sender = sliding()
        sender.receive(Ack(914, 0, 0, 1), 0.1)
        sender.receive(Nak(914, (1,)), 0.2)
        sender.take_outputs()
        sender.receive(Nak(914, (1,)), at + 1e-9)
        assert indices(sender) == sent

    def test_is_obeyed_as_often_as_a_segment_may_be_tried(self):
        sender = sliding(tries_max=3)
        for at in range(1, 9):
            sender.receive(Nak(914, (0,)), float(at))
        assert indices(sender) == [0, 0]


class TestGivingUp:
    @pytest.mark.parametrize("kind", [LockStepSender, SlidingWindowSender])
    def test_comes_after_so_many_transmissions(self, kind):
        gives_up(lambda segments: kind(segments, 1))

    def test_says_what_is_known(self):
        sender = sliding(tries_max=1)
        sender.receive(Ack(914, 0, 0, 1), 0.1)
        with pytest.raises(GaveUp) as caught:
            sender.on_deadline(9.0)
        assert str(caught.value) == (
            "message 914: gave up after 1 tries, segment 2 of 12 was never acknowledged"
        )
        assert (caught.value.message, caught.value.index, caught.value.tries) == (914, 1, 1)
        assert sender.gave_up is caught.value

    def test_is_final(self):
        sender = sliding(tries_max=1)
        with pytest.raises(GaveUp):
            sender.on_deadline(1.0)
        sender.receive(Ack(914, 0, 0, 4), 1.1)
        sender.receive(Nak(914, (0,)), 1.1)
        assert (indices(sender), sender.next_deadline(), sender.done) == ([], None, False)
        sender.check()

    def test_counts_tries_in_a_row(self):
        sender = sliding(1, tries_max=2, timer=FixedTimer(0.1))
        now = 0.0
        for index in range(12):
            now = sender.next_deadline()
            sender.on_deadline(now)
            sender.receive(Ack(914, index, index, index + 1), now)
        assert sender.done

    def test_needs_one_try(self):
        with pytest.raises(ValueError, match="sent once at least, not 0 times"):
            LockStepSender(SEGMENTS, tries_max=0)


class TestAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            Ack(915, 7, 0, 1),  # of another message
            Ack(914, 7, 0, 5),  # of what was never sent
            Ack(914, 7, 0, 0, (4,)),
            Ack(914, 7, 99, 99),
            Nak(915, (0,)),
        ],
        ids=repr,
    )
    def test_that_are_impossible_change_nothing(self, answer):
        sender = sliding(4)
        before = sender.next_deadline()
        sender.receive(answer, 0.5)
        sender.check()
        assert (indices(sender), sender.next_index) == ([], 0)
        sender.receive(Ack(914, 0, 3, 4), 0.6)  # and the true one still counts
        assert sender.next_index == 4 > before

    def test_that_were_overtaken_by_newer_ones_change_nothing(self):
        sender = sliding(4)
        sender.receive(Ack(914, 3, 3, 0, (1, 3)), 0.1)
        sender.receive(Ack(914, 2, 1, 0, (1,)), 0.1)
        sender.on_deadline(1.0)
        assert indices(sender) == [0, 2]


def test_a_sender_says_how_it_is_doing():
    sender = sliding(4)
    sender.receive(Ack(914, 0, 0, 1), 0.1)
    assert repr(sender) == "<SlidingWindowSender message 914: 1 of 12 done, 4 under way>"
