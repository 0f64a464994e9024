"""One connection: two cores joined by bytes, and what a peer may not do."""

from __future__ import annotations

import random
import struct

import pytest

from dht.torrent import events, messages
from dht.torrent.bencode import encode
from dht.torrent.connection import (
    BUFFER,
    HANDSHAKE_S,
    IDLE_S,
    KEEP_ALIVE_S,
    MESSAGE_S,
    NONSENSE_MAX,
    PeerConnection,
)
from dht.torrent.errors import ProtocolViolation
from dht.torrent.messages import Handshake, allowed_fast_set, pack_bits, unpack_bits
from dht.torrent.shape import BLOCK, Shape

HASH = b"i" * 20
SHAPE = Shape(10, 2 * BLOCK, 19 * BLOCK + 100)  # the last piece: one block and 100 bytes


def handshake(name=b"-XX0000-", fast=True, extensions=False, info_hash=HASH):
    return Handshake(info_hash, name.ljust(20, b"."), fast, extensions)


def connection(shape=SHAPE, caller=False, fast=True, extensions=False):
    made = PeerConnection(handshake(b"-RL0100-", fast, extensions), shape, caller=caller, now=0.0)
    return made


def opened(**options):
    """A connection whose handshake is over."""
    made = connection(**options)
    fast, extensions = options.get("fast", True), options.get("extensions", False)
    made.feed(handshake(fast=fast, extensions=extensions).encode(), 0.0)
    made.take_output()
    return made


def say(made, kind, payload=b"", now=0.0):
    return made.feed(struct.pack("!IB", 1 + len(payload), kind) + payload, now)


def u32(*numbers):
    return struct.pack(f"!{len(numbers)}I", *numbers)


class TestHandshake:
    def test_a_caller_speaks_first_and_an_accepter_answers(self):
        near = PeerConnection(handshake(), SHAPE, caller=True, now=0.0)
        far = connection()
        assert far.take_output() == []
        (hello,) = near.take_output()
        assert len(hello) == 68
        (shook,) = far.feed(hello, 0.0)
        assert isinstance(shook, events.Shook)
        (answer,) = far.take_output()
        near.feed(answer, 0.0)
        assert near.open
        assert far.open
        assert near.fast

    def test_byte_by_byte(self):
        made = connection()
        for byte in handshake().encode()[:-1]:
            assert made.feed(bytes((byte,)), 0.0) == []
        (shook,) = made.feed(handshake().encode()[-1:], 0.0)
        assert shook.handshake == handshake()

    @pytest.mark.parametrize(
        ("hello", "why"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", "not the BitTorrent"),
            (b"\x13BitTorrent protocoX", "not the BitTorrent"),
            (b"\x00", "not the BitTorrent"),
            (handshake(info_hash=b"j" * 20).encode(), "another torrent"),
            (handshake(b"-RL0100-").encode(), "ourselves"),
        ],
    )
    def test_refused(self, hello, why):
        with pytest.raises(ProtocolViolation, match=why):
            connection().feed(hello, 0.0)

    def test_fast_only_if_both_have_it(self):
        made = connection(fast=True)
        made.feed(handshake(fast=False).encode(), 0.0)
        assert not made.fast


class TestBitfields:
    @pytest.mark.parametrize("count", [1, 7, 8, 9, 10, 1000])
    def test_there_and_back(self, count):
        rng = random.Random(count)
        have = bytearray(rng.choice((0, 1)) for _ in range(count))
        assert unpack_bits(pack_bits(have), count) == have

    def test_the_first_piece_is_the_highest_bit(self):
        assert pack_bits(bytearray([1, 0, 0, 0, 0, 0, 0, 0, 1])) == b"\x80\x80"

    @pytest.mark.parametrize("bits", [b"\xff", b"\xff\xff\xff", b"\xff\xe0"])
    def test_a_wrong_length_or_a_spare_bit_is_refused(self, bits):
        with pytest.raises(ProtocolViolation):
            say(opened(), messages.BITFIELD, bits)

    def test_have_all_have_none(self):
        made = opened()
        assert say(made, messages.HAVE_ALL) == [events.HasMap()]
        assert made.have == bytearray(b"\1" * 10)
        assert say(opened(), messages.HAVE_NONE) == [events.HasMap()]

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            (messages.HAVE_ALL, messages.HAVE_NONE),
            (messages.HAVE_NONE, messages.HAVE_ALL),
            (messages.UNCHOKE, messages.HAVE_ALL),
        ],
    )
    def test_told_once_and_first(self, first, then):
        made = opened()
        say(made, first)
        with pytest.raises(ProtocolViolation, match="once, and first"):
            say(made, then)

    def test_a_later_bitfield_stands_for_haves(self):
        made = opened()
        say(made, messages.BITFIELD, b"\x80\x00")
        assert say(made, messages.BITFIELD, b"\xc0\x40") == [events.Has(1), events.Has(9)]

    def test_a_have_twice_is_no_news(self):
        made = opened()
        assert say(made, messages.HAVE, u32(3)) == [events.Has(3)]
        assert say(made, messages.HAVE, u32(3)) == []

    @pytest.mark.parametrize("ours", [b"\1" * 10, b"\0" * 10, b"\0\1" * 5])
    @pytest.mark.parametrize("fast", [True, False])
    def test_what_we_tell_is_understood(self, ours, fast):
        near, far = opened(fast=fast), opened(fast=fast)
        near.tell_all(bytearray(ours))
        far.feed(b"".join(near.take_output()), 0.0)
        assert far.have == ours


class TestRequests:
    def test_a_block_comes_once(self):
        made = opened()
        made.request(0, BLOCK, BLOCK)
        (block,) = say(made, messages.PIECE, u32(0, BLOCK) + b"x" * BLOCK)
        assert (block.piece, block.begin, bytes(block.data)) == (0, BLOCK, b"x" * BLOCK)
        with pytest.raises(ProtocolViolation, match="nobody asked"):
            say(made, messages.PIECE, u32(0, BLOCK) + b"x" * BLOCK)

    @pytest.mark.parametrize("size", [0, 1, BLOCK - 1])
    def test_of_the_wrong_length_is_refused(self, size):
        made = opened()
        made.request(0, 0, BLOCK)
        with pytest.raises(ProtocolViolation, match=f"a block of {size} bytes"):
            say(made, messages.PIECE, u32(0, 0) + b"x" * size)

    def test_a_short_piece_message_is_refused(self):
        with pytest.raises(ProtocolViolation, match="without a piece"):
            say(opened(), messages.PIECE, u32(0))

    def test_after_a_cancel_an_answer_may_still_come_once(self):
        made = opened()
        made.request(0, 0, BLOCK)
        made.cancel(0, 0)
        assert say(made, messages.PIECE, u32(0, 0) + b"x" * BLOCK) == []
        with pytest.raises(ProtocolViolation):
            say(made, messages.PIECE, u32(0, 0) + b"x" * BLOCK)

    def test_a_choke_drops_them_without_fast_and_leaves_them_with_it(self):
        plain, fast = opened(fast=False), opened()
        for made in (plain, fast):
            made.request(0, 0, BLOCK)
        assert say(plain, messages.CHOKE) == [events.Choked([(0, 0)])]
        assert say(fast, messages.CHOKE) == [events.Choked([])]
        assert say(fast, messages.REJECT, u32(0, 0, BLOCK)) == [events.Rejected(0, 0)]

    def test_without_fast_unasked_blocks_are_borne_so_many_times(self):
        made = opened(fast=False)
        for _ in range(NONSENSE_MAX):
            say(made, messages.PIECE, u32(0, 0) + b"x" * BLOCK)
        with pytest.raises(ProtocolViolation, match="too many"):
            say(made, messages.PIECE, u32(0, 0) + b"x" * BLOCK)

    def test_a_reject_of_what_nobody_asked_is_refused(self):
        with pytest.raises(ProtocolViolation, match="rejects what"):
            say(opened(), messages.REJECT, u32(0, 0, BLOCK))

    @pytest.mark.parametrize("kind", [messages.REQUEST, messages.CANCEL])
    @pytest.mark.parametrize(
        "about",
        [
            (10, 0, BLOCK),  # no such piece
            (0, 0, 0),
            (0, 0, BLOCK + 1),
            (0, 2 * BLOCK, 1),  # beyond the piece
            (0, BLOCK + 1, BLOCK),
            (9, BLOCK, 101),  # beyond the short last piece
            (0, 0xFFFFFFFF, 2),
        ],
    )
    def test_for_what_is_not_there_are_refused(self, kind, about):
        with pytest.raises(ProtocolViolation, match="a request for"):
            say(opened(), kind, u32(*about))

    def test_good_ones_are_told(self):
        made = opened()
        assert say(made, messages.REQUEST, u32(9, BLOCK, 100)) == [events.Request(9, BLOCK, 100)]
        assert say(made, messages.CANCEL, u32(9, BLOCK, 100)) == [events.Cancel(9, BLOCK, 100)]


class TestMalformed:
    @pytest.mark.parametrize("length", [BLOCK + (64 << 10), 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_oversized_lengths_are_refused_before_they_are_waited_for(self, length):
        with pytest.raises(ProtocolViolation, match="a message of"):
            opened().feed(struct.pack("!IB", length, messages.PIECE), 0.0)

    def test_also_those_that_would_fit_the_buffer(self):
        made = opened()
        length = 100 << 10
        assert length < BUFFER
        with pytest.raises(ProtocolViolation, match="a message of"):
            made.feed(struct.pack("!IB", length, messages.PIECE) + bytes(length - 1), 0.0)

    @pytest.mark.parametrize(
        ("kind", "size"),
        [(kind, size) for kind, right in
         ((0, 0), (1, 0), (2, 0), (3, 0), (4, 4), (6, 12), (8, 12), (9, 2), (13, 4), (14, 0),
          (15, 0), (16, 12), (17, 4))
         for size in (right - 1, right + 1) if size >= 0],
    )  # fmt: skip
    def test_wrong_payload(self, kind, size):
        with pytest.raises(ProtocolViolation, match="bytes, not"):
            say(opened(), kind, bytes(size))

    @pytest.mark.parametrize("kind", [13, 14, 15, 16, 17])
    def test_fast_messages_when_not_agreed_on(self, kind):
        size = {13: 4, 14: 0, 15: 0, 16: 12, 17: 4}[kind]
        with pytest.raises(ProtocolViolation, match="not agreed on"):
            say(opened(fast=False), kind, bytes(size))

    @pytest.mark.parametrize("kind", [4, 13, 17])
    def test_pieces_that_are_not_there(self, kind):
        with pytest.raises(ProtocolViolation, match="piece 10 of 10"):
            say(opened(), kind, u32(10))

    @pytest.mark.parametrize("payload", [b"", b"\0x", b"\0i1e", b"\0d1:b", b"\0" + b"l" * 99])
    def test_extension_handshakes(self, payload):
        with pytest.raises(ProtocolViolation):
            say(opened(extensions=True), messages.EXTENDED, payload)

    def test_unknown_messages_are_skipped(self):
        made = opened()
        assert say(made, 99, b"whatever") == []
        assert say(made, messages.UNCHOKE) == [events.Unchoked()]

    def test_random_bytes_never_do_anything_but_raise_a_violation(self):
        for seed in range(300):
            rng = random.Random(seed)
            made = opened(extensions=True, fast=bool(seed % 2))
            try:
                for _ in range(20):
                    kind = rng.choice((*range(18), 20, rng.randrange(256)))
                    payload = rng.randbytes(rng.choice((0, 2, 4, 12, 40)))
                    say(made, kind, payload)
            except ProtocolViolation:
                pass


class TestExtensions:
    def test_ids_are_those_of_the_receiver(self):
        made = opened(extensions=True)
        says = {b"m": {b"ut_metadata": 3, b"ut_pex": 0, b"other": 9}, b"p": 6881, b"reqq": 7}
        (told,) = say(made, messages.EXTENDED, b"\0" + encode(says))
        assert told == events.ExtensionHandshake(says)
        assert made.understands(b"ut_metadata")
        assert not made.understands(b"ut_pex")  # 0 disables
        made.extension(b"ut_metadata", b"x")
        assert made.take_output() == [b"\0\0\0\3\x14\x03x"]
        assert say(made, messages.EXTENDED, b"\1payload") == [
            events.Extension(b"ut_metadata", b"payload")
        ]
        assert say(made, messages.EXTENDED, b"\x55payload") == []

    @pytest.mark.parametrize("kind", [messages.BITFIELD, messages.HAVE_ALL, messages.HAVE])
    def test_before_the_metadata_is_there_haves_are_kept(self, kind):
        made = opened(shape=None)
        payload = {messages.BITFIELD: b"\xff\xc0", messages.HAVE: u32(4)}.get(kind, b"")
        say(made, kind, payload)
        made.learn(SHAPE)
        assert made.have.count(1) == (1 if kind == messages.HAVE else 10)

    def test_and_checked_when_it_comes(self):
        made = opened(shape=None)
        say(made, messages.BITFIELD, b"\xff\xff")
        with pytest.raises(ProtocolViolation, match="spare bit"):
            made.learn(SHAPE)


class TestTime:
    def test_no_handshake_in_time(self):
        made = connection()
        assert made.overdue(HANDSHAKE_S) == ""
        assert made.overdue(HANDSHAKE_S + 1) == "no handshake"

    def test_a_message_a_byte_a_minute(self):
        """A slow loris is heard all the time, and ended nevertheless."""
        made, now = opened(), 0.0
        whole = struct.pack("!IBI", 5, messages.HAVE, 1)
        for byte in whole[:-1]:
            made.feed(bytes((byte,)), now)
            now += MESSAGE_S / 7
        assert made.overdue(MESSAGE_S - 1) == ""
        assert "too long over a message" in made.overdue(MESSAGE_S + 1)

    def test_silence(self):
        made = opened()
        assert made.overdue(IDLE_S) == ""
        assert made.overdue(IDLE_S + 1) == "it is silent"

    def test_keep_alives_are_sent_and_borne(self):
        made = opened()
        made.keep_alive(KEEP_ALIVE_S + 1)
        assert made.take_output() == [b"\0\0\0\0"]
        assert made.feed(b"\0\0\0\0" * 3, 0.0) == []


def test_allowed_fast_set_is_bep_6s():
    pieces = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]
    assert allowed_fast_set(b"\xaa" * 20, "80.4.4.200", 1313, 9) == pieces
    assert allowed_fast_set(b"\xaa" * 20, "80.4.4.200", 3, 7) != []


def test_repr():
    made = opened()
    say(made, messages.UNCHOKE)
    assert repr(made) == "<PeerConnection -XX0000- C asked=0>"
