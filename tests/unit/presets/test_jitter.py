"""The jitter buffer: its size by the formula, exactly, and what becomes of what comes late."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.presets.jitter import (
    AHEAD_MAX,
    STALL_SLOTS,
    JitterBuffer,
    JitterEstimate,
    Slot,
    segments_needed,
)


def play_out(delays, segments, headway, buffer=None):
    """A stream with these delays, played to its end; returns the buffer, slots, most held."""
    buffer = JitterBuffer(segments, headway) if buffer is None else buffer
    arrivals = sorted((i * headway + delay, i) for i, delay in enumerate(delays))
    slots, most = [], 0
    for now, i in arrivals:
        slots += buffer.play(now - 1)  # what comes when it is due is in time
        buffer.receive(i, b"%d" % i, now)
        slots += buffer.play(now)
        most = max(most, len(buffer))
    last = len(delays) - 1
    while not slots or slots[-1].sequence < last:
        slots += buffer.play(buffer.next_deadline())
    return buffer, slots, most


@st.composite
def paths(draw):
    """(shortest, longest, headway, delays): any delays at all within the range."""
    shortest = draw(st.integers(0, 300))
    longest = shortest + draw(st.integers(0, 300))
    headway = draw(st.integers(1, 100))
    delay = st.integers(shortest, longest) | st.sampled_from([shortest, longest])
    return shortest, longest, headway, draw(st.lists(delay, min_size=1, max_size=25))


class TestFormula:
    @pytest.mark.parametrize(
        ("longest", "shortest", "headway", "segments"),
        [
            (120, 20, 20, 5),
            (121, 20, 20, 6),  # a little more is one more
            (120, 20, 40, 3),
            (50_000, 50_000, 20, 0),  # a path to the Moon whose delays are alike
            (21, 20, 1000, 1),
        ],
    )
    def test_is_the_difference_of_delays_in_headways_rounded_up(
        self, longest, shortest, headway, segments
    ):
        assert segments_needed(longest, shortest, headway) == segments

    @pytest.mark.parametrize("numbers", [(10, 20, 5), (20, 10, 0), (20, -1, 5)])
    def test_refuses_what_is_no_path(self, numbers):
        with pytest.raises(ValueError, match="0 <= shortest <= longest"):
            segments_needed(*numbers)

    def test_is_enough_and_one_less_is_not_for_all_small_paths(self):
        """Every path with delays of 7 to 7 + 16 ticks, every order of its extremes."""
        for spread, headway in product(range(17), range(1, 13)):
            shortest, longest = 7, 7 + spread
            segments = segments_needed(longest, shortest, headway)
            for delays in product((shortest, longest), repeat=4):
                buffer, *_ = play_out(delays, segments, headway)
                assert buffer.concealed == 0, (delays, headway)
            if segments:
                buffer, *_ = play_out([shortest, longest], segments - 1, headway)
                assert buffer.late == 1, (spread, headway)

    def test_both_sides_of_the_boundary_to_the_tick(self):
        for longest, gaps in ((120, 0), (121, 1)):
            buffer, *_ = play_out([20, longest, 20], 5, 20)
            assert buffer.concealed == gaps


class TestBuffer:
    def test_plays_in_step_what_came_out_of_step_and_out_of_order(self):
        buffer = JitterBuffer(2, 10)
        for i, now in ((0, 5), (2, 21), (1, 22), (3, 44)):
            buffer.receive(i, b"abcd"[i : i + 1], now)
        assert buffer.next_deadline() == 25
        assert buffer.play(24) == []
        assert buffer.play(55) == [
            Slot(0, 25, b"a"),
            Slot(1, 35, b"b"),
            Slot(2, 45, b"c"),
            Slot(3, 55, b"d"),
        ]

    def test_conceals_what_is_lost_and_counts_it(self):
        buffer, slots, _ = play_out([0] * 10, 1, 10, buffer=Losing({3, 4}))
        assert [slot.sequence for slot in slots if slot.payload is None] == [3, 4]
        assert (buffer.played, buffer.concealed, buffer.late) == (8, 2, 0)

    def test_drops_what_is_late_and_counts_it_once(self):
        buffer = JitterBuffer(0, 10)
        buffer.receive(0, b"a", 0)
        assert [slot.payload for slot in buffer.play(10)] == [b"a", None]
        for _ in range(2):
            buffer.receive(1, b"late", 11)
        assert buffer.play(20) == [Slot(2, 20, None)]
        assert (buffer.concealed, buffer.late, buffer.unwanted) == (2, 1, 1)

    def test_plays_a_segment_once_however_many_copies_come(self):
        buffer = JitterBuffer(1, 10)
        for now in (0, 1, 2):
            buffer.receive(0, b"a", now)
        assert [slot.payload for slot in buffer.play(10)] == [b"a"]
        buffer.receive(0, b"a", 11)
        assert (buffer.played, buffer.unwanted, buffer.late) == (1, 3, 0)

    def test_begins_with_what_was_overtaken_if_its_time_is_to_come(self):
        buffer = JitterBuffer(2, 10)
        buffer.receive(7, b"h", 100)
        buffer.receive(6, b"g", 105)
        buffer.receive(4, b"e", 106)  # would have been due at 90
        assert buffer.play(120) == [Slot(6, 110, b"g"), Slot(7, 120, b"h")]
        assert buffer.unwanted == 1

    def test_falls_silent_at_the_end_of_a_stream(self):
        buffer = JitterBuffer(1, 10)
        buffer.receive(0, b"a", 0)
        slots = buffer.play(10**9)
        assert len(slots) == 1 + STALL_SLOTS
        assert buffer.next_deadline() is None

    def test_begins_anew_when_all_delays_have_grown(self):
        """A path that is suddenly a second longer costs one second, and not the rest."""
        buffer, slots, _ = play_out([5] * 10 + [2000] * 100, 2, 10)
        late = [slot for slot in slots if slot.payload is not None and slot.sequence >= 10]
        assert [slot.sequence for slot in late] == list(range(10, 110))
        assert len({slot.due - 10 * slot.sequence for slot in late}) == 1
        assert (buffer.concealed, buffer.late) == (STALL_SLOTS, 0)

    def test_an_old_copy_does_not_wake_a_stream_that_is_over(self):
        buffer = JitterBuffer(1, 10)
        buffer.receive(0, b"a", 0)
        buffer.play(10**9)
        buffer.receive(0, b"a", 10**9)
        assert buffer.next_deadline() is None

    def test_holds_no_more_than_its_bound_whatever_is_sent(self):
        buffer = JitterBuffer(2, 10)
        for i in range(5 * AHEAD_MAX):
            buffer.receive(i, b"x", 0)
        assert len(buffer) == AHEAD_MAX + 1
        assert buffer.refused == 4 * AHEAD_MAX - 1

    @pytest.mark.parametrize("arguments", [(-1, 10), (3, 0)])
    def test_refuses_sizes_that_are_none(self, arguments):
        with pytest.raises(ValueError, match="make no buffer"):
            JitterBuffer(*arguments)


class Losing(JitterBuffer):
    """A path that loses some."""

    def __init__(self, lost):
        super().__init__(1, 10)
        self.lost = lost

    def receive(self, index, payload, now):
        if index not in self.lost:
            super().receive(index, payload, now)


class TestEstimate:
    def test_is_nothing_for_a_path_whose_delays_are_alike(self):
        estimate = JitterEstimate()
        for i in range(100):
            estimate.receive(160 * i, 160 * i + 12_345)
        assert (estimate.jitter, estimate.spread) == (0, 0)

    def test_is_moved_by_a_sixteenth_of_what_differs(self):
        estimate = JitterEstimate()
        for timestamp, now in ((0, 0), (160, 160), (320, 480)):
            estimate.receive(timestamp, now)
        assert estimate.jitter == 160 // 16

    def test_follows_the_mean_difference_of_transit_times(self):
        """Delays of 0 and 80 in turn: each differs by 80 from the last."""
        estimate = JitterEstimate()
        for i in range(200):
            estimate.receive(160 * i, 160 * i + 80 * (i % 2))
        assert 79 <= estimate.jitter <= 80
        assert estimate.spread == 80
        assert estimate.segments_needed(50) == 2


@given(paths())
def test_at_the_formulas_size_no_delays_within_the_range_make_a_gap(path):
    shortest, longest, headway, delays = path
    segments = segments_needed(longest, shortest, headway)
    buffer, slots, most = play_out(delays, segments, headway)
    played = [slot.sequence for slot in slots]
    assert (buffer.concealed, buffer.late, buffer.refused) == (0, 0, 0)
    assert played == list(range(len(delays)))
    assert [slot.payload for slot in slots] == [b"%d" % i for i in played]
    assert {b.due - a.due for a, b in pairwise(slots)} <= {headway}
    assert most <= 2 * segments


@given(paths())
def test_one_segment_less_is_too_few_for_the_fastest_before_the_slowest(path):
    shortest, longest, headway, _ = path
    segments = segments_needed(longest, shortest, headway) - 1
    if segments < 0:
        return  # all delays alike: there is nothing to take away
    buffer, slots, _ = play_out([shortest, longest], segments, headway)
    assert [slot.payload for slot in slots[:2]] == [b"0", None]
    assert buffer.late == 1


@given(st.lists(st.integers(0, 10_000), max_size=40))
def test_the_estimate_agrees_with_the_formula_of_the_rfc(delays):
    estimate, expected, last = JitterEstimate(), 0.0, None
    for i, delay in enumerate(delays):
        estimate.receive(160 * i, 160 * i + delay)
        if last is not None:
            expected += (abs(delay - last) - expected) / 16
        last = delay
    assert abs(estimate.jitter - expected) < 2
