"""RTP's packet and its numbers that wrap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.presets.rtp import MalformedRtp, RtpPacket, Unwrapped, decode, encode

PACKETS = st.builds(
    RtpPacket,
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    source=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=50),
    payload_type=st.integers(0, 127),
    marker=st.booleans(),
)


class TestPacket:
    def test_lies_on_the_wire_as_in_rfc_3550(self):
        packet = RtpPacket(0x1234, 0x89ABCDEF, 0xCAFED00D, b"\xff", payload_type=96, marker=True)
        assert encode(packet).hex() == "80e0123489abcdefcafed00dff"

    @pytest.mark.parametrize("data", [b"", bytes(11), bytes(12), b"\x90" + bytes(20)])
    def test_of_another_kind_is_refused(self, data):
        with pytest.raises(MalformedRtp):
            decode(data)


class TestUnwrapped:
    def test_goes_on_where_the_counter_begins_again(self):
        numbers = Unwrapped(16)
        seen = [numbers.extend(n) for n in (65_534, 65_535, 0, 1)]
        assert seen == [65_534, 65_535, 65_536, 65_537]

    def test_goes_on_round_after_round(self):
        numbers = Unwrapped(16)
        sent = range(65_000, 5 * 65_536, 1_000)
        assert [numbers.extend(n % 65_536) for n in sent] == list(sent)

    def test_knows_what_comes_late_from_before_the_wrap(self):
        numbers = Unwrapped(16)
        assert [numbers.extend(n) for n in (65_535, 1, 0, 65_534)] == [
            65_535,
            65_537,
            65_536,
            65_534,
        ]

    def test_may_go_below_where_it_began(self):
        numbers = Unwrapped(16)
        assert [numbers.extend(n) for n in (0, 65_535)] == [0, -1]

    def test_takes_half_of_the_range_for_behind_and_less_for_ahead(self):
        for ahead, expected in ((0x7FFF, 0x7FFF), (0x8000, -0x8000)):
            numbers = Unwrapped(16)
            numbers.extend(0)
            assert numbers.extend(ahead) == expected


@given(
    st.integers(0, 0xFFFFFFFF),
    st.lists(st.integers(-1000, 20_000), max_size=100),
)
def test_an_unwrapped_number_is_the_one_that_was_sent_however_often_it_wrapped(first, steps):
    """Out of order by a thousand, gaps of twenty thousand: RFC 3550's sequence numbers."""
    numbers = Unwrapped(16)
    numbers.extend(first % 65_536)
    base = first - first % 65_536
    highest = first
    for step in steps:
        number = highest + step
        assert numbers.extend(number % 65_536) + base == number
        highest = max(highest, number)


@given(PACKETS)
def test_a_packet_is_read_as_it_was_written(packet):
    assert decode(encode(packet)) == packet
