"""What is on the wire: "message 914, segment 3 of 7", and the two kinds of answer to it.

A message is as long as the application likes, a datagram as long as the network allows (MTU), so
a message is cut, and each segment says where it fits (lecture 19, item 24):

    Segment   1 │ message │ index │ count │ payload …                           │ checksum
    Ack       2 │ message │ number │ answers │ next index │ what is held (bits) │ checksum
    Nak       3 │ message │ missing index …                                     │ checksum

Numbers are 32 bits, big end first, but for the byte in front; the checksum is the CRC-32 of all
that precedes it. It is computed where the application hands its data over and checked where the
other one takes them, so it covers everything between the two: end to end (item 23). It protects
against accidents, not against somebody who means to deceive.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from netstack.arq.errors import Malformed, TooLong

_SEGMENT: Final = struct.Struct("!BIII")
_ACK: Final = struct.Struct("!BIIII")
_NAK: Final = struct.Struct("!BI")
_NUMBER: Final = struct.Struct("!I")

OVERHEAD: Final = _SEGMENT.size + _NUMBER.size  # bytes of a segment that are not payload

# A gigabyte in segments of a kilobyte: what keeps a receiver's tables finite.
SEGMENTS_MAX: Final = 1 << 20
# A UDP datagram over IPv4 holds 65,507 bytes.
PAYLOAD_MAX: Final = 65_507 - OVERHEAD
# How far ahead of the next segment anything may be: the bits of an Ack then fit 1,024 bytes.
WINDOW_MAX: Final = 8 * 1024
# Of one Nak; what is missing beyond that is left to the sender's timer.
MISSING_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a message. `index` counts from 0, people from 1."""

    message: int
    index: int
    count: int
    payload: bytes

    def __repr__(self) -> str:
        return (
            f"<message {self.message}, segment {self.index + 1} of {self.count}, "
            f"{len(self.payload)} bytes>"
        )

    def _body(self) -> bytes:
        return _SEGMENT.pack(1, self.message, self.index, self.count) + self.payload

    @property
    def checksum(self) -> int:
        """CRC-32 of the segment, head and payload."""
        return crc32(self._body())

    def encode(self) -> bytes:
        """As on the wire."""
        return _sealed(self._body())


@dataclass(frozen=True, slots=True)
class Ack:
    """Where the receiver stands, sent for every segment that it gets.

    `next_index` is final: all before it went to the application and need never be sent again.
    `held` is what waits in the buffer for that one, in ascending order; it is advice, for a
    receiver may still throw it away (as with TCP's SACK, RFC 2018 §8).
    `answers` is the segment that was just received, by which the sender measures the round trip.
    `number` counts the answers: an Ack that was overtaken by a newer one has nothing to say.
    """

    message: int
    number: int
    answers: int
    next_index: int
    held: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """As on the wire."""
        head = _ACK.pack(2, self.message, self.number, self.answers, self.next_index)
        if not self.held:
            return _sealed(head)
        bits = 0
        for index in self.held:
            bits |= 1 << (index - self.next_index - 1)
        return _sealed(head + bits.to_bytes((bits.bit_length() + 7) // 8, "little"))


@dataclass(frozen=True, slots=True)
class Nak:
    """What the receiver has found to be missing, in ascending order."""

    message: int
    missing: tuple[int, ...]

    def encode(self) -> bytes:
        """As on the wire."""
        indices = struct.pack(f"!{len(self.missing)}I", *self.missing)
        return _sealed(_NAK.pack(3, self.message) + indices)


Answer = Ack | Nak


def cut(message: int, data: bytes, payload_bytes: int) -> list[Segment]:
    """A message as segments of `payload_bytes` each, the last one shorter; raises TooLong.

    An empty message is one empty segment: its end must be told, too.
    """
    if not 1 <= payload_bytes <= PAYLOAD_MAX:
        raise ValueError(f"a payload has 1 to {PAYLOAD_MAX} bytes, not {payload_bytes}")
    if not 0 <= message < 1 << 32:
        raise ValueError(f"a message number has 32 bits, which {message} has not")
    count = max(1, -(-len(data) // payload_bytes))
    if count > SEGMENTS_MAX:
        raise TooLong(
            f"{len(data)} bytes make {count} segments of {payload_bytes}; a message may have "
            f"{SEGMENTS_MAX}: make the segments larger, or send several messages"
        )
    view = memoryview(data)
    return [
        Segment(message, index, count, bytes(view[at : at + payload_bytes]))
        for index, at in enumerate(range(0, max(1, len(data)), payload_bytes))
    ]


def decode(datagram: bytes) -> Segment | Answer:
    """What a datagram says; raises Malformed."""
    body, seal = datagram[: -_NUMBER.size], datagram[-_NUMBER.size :]
    if len(body) < _NAK.size:
        raise Malformed(f"{len(datagram)} bytes are too few for a segment or an answer")
    if crc32(body) != _NUMBER.unpack(seal)[0]:
        raise Malformed("the checksum does not fit: the datagram was damaged on the way")
    try:
        decoder = _DECODERS[body[0]]
    except KeyError:
        raise Malformed(f"there is no message of kind {body[0]}") from None
    try:
        return decoder(body)
    except struct.error:
        raise Malformed(f"kind {body[0]} does not end after {len(body)} bytes") from None


def _segment(body: bytes) -> Segment:
    _, message, index, count = _SEGMENT.unpack_from(body)
    if not index < count <= SEGMENTS_MAX:
        raise Malformed(f"there is no segment {index + 1} of {count}")
    return Segment(message, index, count, body[_SEGMENT.size :])


def _ack(body: bytes) -> Ack:
    _, message, number, answers, next_index = _ACK.unpack_from(body)
    held = body[_ACK.size :]
    if len(held) > WINDOW_MAX // 8:
        raise Malformed(f"an acknowledgement tells of {WINDOW_MAX} segments at most")
    bits = int.from_bytes(held, "little")
    first = next_index + 1
    indices = tuple(first + i for i in range(bits.bit_length()) if bits >> i & 1)
    return Ack(message, number, answers, next_index, indices)


def _nak(body: bytes) -> Nak:
    _, message = _NAK.unpack_from(body)
    size = len(body) - _NAK.size
    if size % _NUMBER.size or not 1 <= size // _NUMBER.size <= MISSING_MAX:
        raise Malformed(f"a NAK names 1 to {MISSING_MAX} segments; {size} bytes do not")
    missing: Iterable[tuple[int]] = _NUMBER.iter_unpack(body[_NAK.size :])
    return Nak(message, tuple(index for (index,) in missing))


def _sealed(body: bytes) -> bytes:
    return body + _NUMBER.pack(crc32(body))


_DECODERS: Final[dict[int, Callable[[bytes], Segment | Answer]]] = {1: _segment, 2: _ack, 3: _nak}
