"""RFC 3550's packet, and the numbers in it that begin again at 0.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                        media timestamp                        |
    |               synchronization source (SSRC)                   |

The sequence number says which segment this is, and shows what is missing; the timestamp says when
it was taken, in ticks of the media's clock. Both start anywhere, so that nobody can rely on where.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER: Final = struct.Struct(">BBHII")
VERSION_2: Final = 0x80
SEQUENCE_BITS: Final = 16
TIMESTAMP_BITS: Final = 32

# RFC 3551: the first payload type that a session may give a meaning of its own.
DYNAMIC: Final = 96


class MalformedRtp(ValueError):
    """Not a packet of RFC 3550, or one of a kind that is not spoken here."""


class RtpPacket(NamedTuple):
    """One segment of media; `sequence` and `timestamp` as on the wire."""

    sequence: int
    timestamp: int
    source: int
    payload: bytes
    payload_type: int = DYNAMIC
    marker: bool = False


def encode(packet: RtpPacket) -> bytes:
    """Its bytes."""
    kind = packet.payload_type | packet.marker << 7
    head = HEADER.pack(VERSION_2, kind, packet.sequence, packet.timestamp, packet.source)
    return head + packet.payload


def decode(data: bytes) -> RtpPacket:
    """The packet in `data`; raises MalformedRtp.

    Padding, header extensions and contributing sources are the business of mixers.
    """
    if len(data) < HEADER.size:
        raise MalformedRtp(f"{len(data)} bytes are no RTP packet")
    first, kind, sequence, timestamp, source = HEADER.unpack_from(data)
    if first != VERSION_2:
        raise MalformedRtp(f"an RTP packet that begins with {first:#04x}")
    return RtpPacket(
        sequence, timestamp, source, data[HEADER.size :], kind & 0x7F, marker=bool(kind & 0x80)
    )


class Unwrapped:
    """A counter of `bits` bits, as the number that it would be had it never wrapped.

    Taken for the nearest number to the highest before it, so it may come out of order by half of
    its range (RFC 3550, A.1).
    """

    def __init__(self, bits: int) -> None:
        self._range = 1 << bits
        self._highest: int | None = None

    def __repr__(self) -> str:
        return f"<Unwrapped highest={self._highest} of {self._range}>"

    def extend(self, value: int) -> int:
        """The number that `value` stands for; the first is itself."""
        if self._highest is None:
            self._highest = value
            return value
        ahead = (value - self._highest) % self._range
        if ahead >= self._range // 2:
            ahead -= self._range
        extended = self._highest + ahead
        self._highest = max(self._highest, extended)
        return extended
