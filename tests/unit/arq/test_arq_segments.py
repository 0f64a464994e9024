"""Cutting, the wire, and what is made of a datagram that is not what it should be."""

from __future__ import annotations

import contextlib
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.arq import segment as s
from netstack.arq.errors import Malformed, TooLong
from netstack.arq.segment import Ack, Nak, Segment, cut, decode

NUMBERS = st.integers(0, 2**32 - 1)


def sealed(body: bytes) -> bytes:
    return body + crc32(body).to_bytes(4, "big")


class TestCutting:
    @pytest.mark.parametrize(
        ("size", "sizes"),
        [(0, [0]), (1, [1]), (9, [9]), (10, [10]), (11, [10, 1]), (30, [10, 10, 10])],
    )
    def test_all_pieces_are_full_but_the_last(self, size, sizes):
        pieces = cut(914, bytes(range(size)), 10)
        assert [len(piece.payload) for piece in pieces] == sizes
        assert b"".join(piece.payload for piece in pieces) == bytes(range(size))
        assert {(piece.message, piece.count) for piece in pieces} == {(914, len(sizes))}
        assert [piece.index for piece in pieces] == list(range(len(sizes)))

    def test_a_segment_says_where_it_fits_as_in_the_lecture(self):
        assert repr(cut(914, bytes(70), 10)[2]) == "<message 914, segment 3 of 7, 10 bytes>"

    def test_a_message_may_have_as_many_segments_as_can_be_counted_and_no_more(self, monkeypatch):
        monkeypatch.setattr(s, "SEGMENTS_MAX", 5)
        assert len(cut(1, bytes(50), 10)) == 5
        with pytest.raises(TooLong, match="51 bytes make 6 segments of 10; a message may have 5"):
            cut(1, bytes(51), 10)

    @pytest.mark.parametrize("size", [0, -1, s.PAYLOAD_MAX + 1])
    def test_a_payload_fits_a_datagram(self, size):
        assert len(cut(1, bytes(9), s.PAYLOAD_MAX)[0].encode()) < 65_507
        with pytest.raises(ValueError, match=f"a payload has 1 to 65490 bytes, not {size}"):
            cut(1, b"", size)

    @pytest.mark.parametrize("number", [-1, 2**32])
    def test_a_message_number_has_32_bits(self, number):
        cut(2**32 - 1, b"", 1)
        with pytest.raises(ValueError, match="32 bits"):
            cut(number, b"", 1)


class TestWire:
    def test_is_what_the_head_comment_says(self):
        segment = Segment(914, 2, 7, b"abc")
        body = bytes.fromhex("01 00000392 00000002 00000007") + b"abc"
        assert segment.encode() == sealed(body)
        assert segment.checksum == crc32(body)
        ack = Ack(914, 5, 3, 2, (3, 4, 11))
        assert ack.encode() == sealed(bytes.fromhex("02 00000392 00000005 00000003 00000002 0301"))
        nak = Nak(914, (2, 9))
        assert nak.encode() == sealed(bytes.fromhex("03 00000392 00000002 00000009"))

    @given(NUMBERS, st.integers(1, s.SEGMENTS_MAX), st.data(), st.binary(max_size=50))
    def test_segments_survive_it(self, number, count, data, payload):
        segment = Segment(number, data.draw(st.integers(0, count - 1)), count, payload)
        assert decode(segment.encode()) == segment

    @given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 10**6), st.sets(st.integers(1, 8192)))
    def test_acknowledgements_survive_it(self, number, serial, answers, next_index, ahead):
        ack = Ack(number, serial, answers, next_index, tuple(next_index + a for a in sorted(ahead)))
        assert decode(ack.encode()) == ack

    @given(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=s.MISSING_MAX))
    def test_naks_survive_it(self, number, missing):
        assert decode(Nak(number, tuple(missing)).encode()) == Nak(number, tuple(missing))

    @pytest.mark.parametrize(
        "whole", [Segment(914, 2, 7, b"abc"), Ack(914, 5, 3, 2, (4,)), Nak(914, (2,))], ids=repr
    )
    def test_no_flipped_bit_and_no_missing_end_goes_unnoticed(self, whole):
        datagram = whole.encode()
        for bit in range(8 * len(datagram)):
            damaged = bytearray(datagram)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Malformed):
                decode(bytes(damaged))
        for size in range(len(datagram)):
            with pytest.raises(Malformed):
                decode(datagram[:size])

    @given(st.binary(max_size=60), st.booleans())
    def test_noise_is_malformed_and_never_another_error(self, noise, with_seal):
        with contextlib.suppress(Malformed):
            decode(sealed(noise) if with_seal else noise)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ("01 00000392 00000007 00000007", "no segment 8 of 7"),
            ("01 00000392 00000000 00000000", "no segment 1 of 0"),
            ("01 00000392 00000000 00100001", "no segment 1 of 1048577"),
            ("01 00000392 00000000", "kind 1 does not end after 9 bytes"),
            ("02 00000392 00000000 00000000", "kind 2 does not end after 13 bytes"),
            ("02 00000392" + "00" * 12 + "ff" * 1025, "8192 segments at most"),
            ("03 00000392", "names 1 to 256 segments; 0 bytes do not"),
            ("03 00000392 000000", "names 1 to 256 segments; 3 bytes do not"),
            ("03 00000392" + "00000001" * 257, "names 1 to 256 segments; 1028 bytes do not"),
            ("04 00000392", "no message of kind 4"),
        ],
    )
    def test_what_makes_no_sense_is_told_as_such(self, body, says):
        with pytest.raises(Malformed, match=says):
            decode(sealed(bytes.fromhex(body)))

    def test_the_largest_of_each_is_still_sense(self):
        decode(Segment(1, s.SEGMENTS_MAX - 1, s.SEGMENTS_MAX, b"").encode())
        decode(Ack(1, 0, 0, 0, (s.WINDOW_MAX,)).encode())
        decode(Nak(1, tuple(range(s.MISSING_MAX))).encode())
