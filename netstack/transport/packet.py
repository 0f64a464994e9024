"""The datagrams on the wire. Big-endian; ids and packet numbers are 64-bit, never shortened.

    DATA       0x40|phase  destination:8  number:8  sealed frames          17 bytes + tag
    INITIAL    1 XX, 2 IK  source:8  length:2 token  length:2 Noise 1      zeros up to 1,200
    RETRY      3           destination:8  token                            answers INITIAL
    RESPONSE   4           destination:8  source:8  Noise 2                answers INITIAL
    FINAL      5           destination:8  Noise 3                          XX only
    REFUSED    6           destination:8                                   IK failed: use XX
    RESET      7           destination:8  token:16                         answers unknown DATA

QUIC shortens numbers and masks them, so that the network cannot grow attached to them. We own
both ends, and a mask costs an AES call a packet; eight bytes cost nothing. The number is the
nonce, the header is authenticated: whoever changes it, breaks the tag.
"""

from __future__ import annotations

import struct
from typing import Final

DATA: Final = 0x40
INITIAL_XX: Final = 1
INITIAL_IK: Final = 2
RETRY: Final = 3
RESPONSE: Final = 4
FINAL: Final = 5
REFUSED: Final = 6
RESET: Final = 7

PHASE_BIT: Final = 0x01

HEADER: Final = struct.Struct(">BQQ")  # DATA
SHORT: Final = struct.Struct(">BQ")  # all others begin so
LENGTH: Final = struct.Struct(">H")

HEADER_SIZE: Final = HEADER.size
ID_BYTES: Final = 8
TAG_BYTES: Final = 16
RESET_TOKEN_BYTES: Final = 16

# What DATA costs around its frames.
OVERHEAD: Final = HEADER_SIZE + TAG_BYTES


class Malformed(ValueError):
    """Not a datagram of this protocol."""


def initial(kind: int, source_id: int, token: bytes, message: bytes, size: int) -> bytes:
    """An INITIAL, padded so that no answer to it can be larger than it is."""
    packet = b"".join(
        (
            SHORT.pack(kind, source_id),
            LENGTH.pack(len(token)),
            token,
            LENGTH.pack(len(message)),
            message,
        )
    )
    return packet.ljust(size, b"\0")


def parse_initial(data: bytes) -> tuple[int, bytes, bytes]:
    """(source id, token, Noise message) of an INITIAL; raises Malformed."""
    try:
        _, source_id = SHORT.unpack_from(data)
        offset = SHORT.size
        (length,) = LENGTH.unpack_from(data, offset)
        offset += LENGTH.size
        token = data[offset : offset + length]
        offset += length
        (length,) = LENGTH.unpack_from(data, offset)
        offset += LENGTH.size
        message = data[offset : offset + length]
    except struct.error:
        raise Malformed("an INITIAL is cut short") from None
    if len(message) != length:
        raise Malformed("an INITIAL is cut short")
    return source_id, token, message


def destination_id(data: bytes) -> int:
    """The id in any datagram but INITIAL; raises Malformed."""
    if len(data) < SHORT.size:
        raise Malformed("too short for any packet")
    value: int = SHORT.unpack_from(data)[1]
    return value


def number(data: bytes) -> int:
    """The number of a DATA packet; raises Malformed."""
    if len(data) < HEADER_SIZE:
        raise Malformed("too short for a DATA packet")
    value: int = HEADER.unpack_from(data)[2]
    return value
