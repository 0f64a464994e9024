"""The four receivers: what they keep, what they say, what reaches the application."""

from __future__ import annotations

import pytest
from arq_kit import asks_once, message, stops_asking

from netstack.arq.buffering import BufferingReceiver
from netstack.arq.flushing import FlushingReceiver
from netstack.arq.in_order import InOrderReceiver
from netstack.arq.nak import DUPLICATES_MAX, NakReceiver
from netstack.arq.segment import MISSING_MAX, WINDOW_MAX, Ack, Nak, Segment
from netstack.arq.strategies import RECEIVERS

DATA, SEGMENTS = message(12)
OTHER = Segment(915, 0, 12, b"x")


def feed(receiver, *indices, segments=SEGMENTS):
    """Let these arrive; returns the answers."""
    for index in indices:
        receiver.receive(segments[index])
        receiver.check()
    return receiver.take_outputs()


def held(receiver) -> tuple[int, ...]:
    """What it says that it holds."""
    answers = feed(receiver, 0)
    return answers[-1].held


def part(first: int, end: int) -> bytes:
    return DATA[first * 500 : end * 500]


@pytest.mark.parametrize("kind", RECEIVERS.values(), ids=RECEIVERS)
class TestAll:
    def test_deliver_what_comes_in_order_at_once_and_keep_nothing(self, kind):
        receiver = kind()
        for index in range(12):
            assert feed(receiver, index) == [Ack(914, index, index, index + 1)]
            assert receiver.take_data() == part(index, index + 1)
        assert (receiver.done, receiver.high_water_bytes, receiver.duplicates) == (True, 0, 0)

    def test_deliver_nothing_twice_and_answer_it_all_the_same(self, kind):
        receiver = kind()
        assert feed(receiver, 0, 0, 0)[-1] == Ack(914, 2, 0, 1)
        assert receiver.take_data() == part(0, 1)
        assert receiver.duplicates == 2

    def test_deliver_nothing_past_a_hole_and_fill_it_when_it_comes(self, kind):
        receiver = kind()
        feed(receiver, 0, 2, 3)
        assert receiver.take_data() == part(0, 1)
        feed(receiver, 1, 2, 3)
        assert receiver.take_data() == part(1, 4)
        assert receiver.take_data() == b""

    def test_take_no_notice_of_other_messages(self, kind):
        receiver = kind()
        feed(receiver, 0)
        receiver.receive(OTHER)
        receiver.receive(Segment(914, 1, 13, b"x"))  # the same number, and of another length
        assert (receiver.take_outputs(), receiver.take_data()) == ([], part(0, 1))

    def test_know_the_end_of_an_empty_message(self, kind):
        receiver = kind()
        assert not receiver.done
        receiver.receive(Segment(1, 0, 1, b""))
        assert receiver.done

    def test_refuse_what_lies_too_far_ahead_for_an_acknowledgement_to_tell(self, kind):
        receiver = kind()
        receiver.receive(Segment(1, WINDOW_MAX + 1, WINDOW_MAX + 2, b"x"))
        assert (receiver.dropped, receiver.high_water_bytes) == (1, 0)

    def test_refuse_a_buffer_of_less_than_nothing(self, kind):
        with pytest.raises(ValueError, match="a buffer has 0 bytes or more, not -1"):
            kind(-1)

    def test_say_how_they_are_doing(self, kind):
        receiver = kind()
        feed(receiver, 0)
        assert repr(receiver) == f"<{kind.__name__} message 914: 1 of 12 delivered, 0 held>"


class TestInOrder:
    def test_drops_what_comes_before_its_turn(self):
        receiver = InOrderReceiver()
        assert feed(receiver, 2, 3, 0) == [
            Ack(914, 0, 2, 0),
            Ack(914, 1, 3, 0),
            Ack(914, 2, 0, 1),
        ]
        assert (receiver.dropped, receiver.high_water_bytes) == (2, 0)


class TestBuffering:
    def test_holds_what_comes_before_its_turn_and_says_so(self):
        receiver = BufferingReceiver()
        assert feed(receiver, 2, 5)[-1] == Ack(914, 1, 5, 0, (2, 5))
        assert feed(receiver, 0)[-1] == Ack(914, 2, 0, 1, (2, 5))
        assert feed(receiver, 1)[-1] == Ack(914, 3, 1, 3, (5,))
        assert (receiver.high_water_bytes, receiver.held_bytes) == (1000, 500)

    def test_holds_as_much_as_fits_and_not_a_byte_more(self):
        receiver = BufferingReceiver(1500)
        feed(receiver, 3, 4, 5)
        assert (receiver.held_bytes, receiver.dropped) == (1500, 0)
        feed(receiver, 6)
        assert (receiver.held_bytes, receiver.dropped) == (1500, 1)
        assert held(receiver) == (3, 4, 5)
        short = BufferingReceiver(1499)
        feed(short, 3, 4, 5)
        assert (short.held_bytes, short.dropped) == (1000, 1)

    def test_counts_what_it_holds_already_as_a_duplicate(self):
        receiver = BufferingReceiver()
        feed(receiver, 3, 3)
        assert (receiver.duplicates, receiver.held_bytes) == (1, 500)

    def test_holds_the_farthest_that_can_be_told(self):
        receiver = BufferingReceiver()
        receiver.receive(Segment(1, WINDOW_MAX, WINDOW_MAX + 1, b"x"))
        assert receiver.take_outputs()[0].held == (WINDOW_MAX,)


class TestFlushing:
    def test_is_emptied_by_what_does_not_fit_and_says_so(self):
        receiver = FlushingReceiver(1500)
        assert feed(receiver, 3, 4, 5)[-1].held == (3, 4, 5)
        assert feed(receiver, 6)[-1].held == ()
        assert (receiver.flushes, receiver.dropped, receiver.held_bytes) == (1, 4, 0)
        assert receiver.high_water_bytes == 1500
        feed(receiver, *range(12))
        assert receiver.take_data() == DATA

    def test_keeps_what_fits(self):
        receiver = FlushingReceiver(1500)
        feed(receiver, 1, 2, 3, 0)
        assert (receiver.flushes, receiver.take_data()) == (0, part(0, 4))


class TestNak:
    def test_asks_once_for_all_that_is_missing_and_at_once(self):
        asks_once(NakReceiver)
        receiver = NakReceiver()
        assert feed(receiver, 2) == [Nak(914, (0, 1)), Ack(914, 0, 2, 0, (2,))]
        assert feed(receiver, 6)[0] == Nak(914, (3, 4, 5))
        assert feed(receiver, 4) == [Ack(914, 2, 4, 0, (2, 4, 6))]
        assert receiver.naks == 2

    def test_asks_for_nothing_that_came_in_order(self):
        receiver = NakReceiver()
        feed(receiver, *range(6))
        assert feed(receiver, 6) == [Ack(914, 6, 6, 7)]
        assert receiver.naks == 0

    def test_asks_for_as_many_as_a_nak_can_name(self):
        receiver = NakReceiver()
        receiver.receive(Segment(1, MISSING_MAX + 5, MISSING_MAX + 9, b"x"))
        assert receiver.take_outputs()[0] == Nak(1, tuple(range(MISSING_MAX)))

    def test_asks_for_what_it_had_no_room_for_no_more_than_a_buffer_would(self):
        receiver = NakReceiver(500)
        assert feed(receiver, 2, 3, 4)[0] == Nak(914, (0, 1))
        assert (receiver.naks, receiver.dropped) == (1, 2)

    def test_stops_when_most_of_what_it_asked_for_comes_twice(self):
        receiver = NakReceiver()
        for index in range(0, 2 * DUPLICATES_MAX, 2):
            feed(receiver, index + 1, index, index)
        assert receiver.asking
        feed(receiver, 7, 6, 6)
        assert not receiver.asking
        assert feed(receiver, 10) == [Ack(914, 12, 10, 8, (10,))]
        assert receiver.asked_in_vain == DUPLICATES_MAX + 1

    def test_goes_on_when_asking_mostly_helps(self):
        _, segments = message(40)
        receiver = NakReceiver()
        feed(receiver, 20, segments=segments)  # asks for twenty
        for index in range(10):
            feed(receiver, index, index, segments=segments)
        assert receiver.asking
        feed(receiver, 10, 10, segments=segments)
        assert not receiver.asking

    def test_does_not_take_a_link_that_doubles_for_one_that_overtakes(self):
        receiver = NakReceiver()
        feed(receiver, *(index for index in range(12) for _ in range(2)))
        assert (receiver.asking, receiver.duplicates) == (True, 12)

    def test_stops_on_a_path_that_overtakes(self):
        stops_asking(NakReceiver)
