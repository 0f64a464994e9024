"""The peer wire protocol's messages as bytes (BEP 3; fast extension, BEP 6; extensions, BEP 10).

handshake   19 "BitTorrent protocol" | 8 reserved | 20 info-hash | 20 peer id
message     u32 length | u8 id | payload             length 0: keep-alive
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from dht.torrent.errors import ProtocolViolation
from dht.torrent.metainfo import HASH

CHOKE, UNCHOKE, INTERESTED, NOT_INTERESTED, HAVE, BITFIELD, REQUEST, PIECE, CANCEL, PORT = range(10)
SUGGEST, HAVE_ALL, HAVE_NONE, REJECT, ALLOWED_FAST = 13, 14, 15, 16, 17
EXTENDED: Final = 20

HEAD: Final = struct.Struct("!IB")
ONE: Final = struct.Struct("!I")
INDEXED: Final = struct.Struct("!IBI")
BLOCK_AT: Final = struct.Struct("!III")
ASK: Final = struct.Struct("!IBIII")
BLOCK_HEAD: Final = struct.Struct("!IBII")

PROTOCOL: Final = b"\x13BitTorrent protocol"
HANDSHAKE_SIZE: Final = 68
PEER_ID: Final = 20
# Ours: `RL`, version 0.1.0, and twelve random bytes (BEP 20).
CLIENT: Final = b"-RL0100-"
VERSION: Final = b"ringleader 0.1"

KEEP_ALIVE: Final = b"\0\0\0\0"

# Bits of the reserved bytes.
EXTENSION_BYTE, EXTENSION_BIT = 5, 0x10
FAST_BYTE, FAST_BIT = 7, 0x04


@dataclass(frozen=True, slots=True)
class Handshake:
    """The first 68 bytes of either side."""

    info_hash: bytes
    peer_id: bytes
    fast: bool = True
    extensions: bool = True

    def encode(self) -> bytes:
        """The 68 bytes."""
        reserved = bytearray(8)
        if self.fast:
            reserved[FAST_BYTE] |= FAST_BIT
        if self.extensions:
            reserved[EXTENSION_BYTE] |= EXTENSION_BIT
        return PROTOCOL + reserved + self.info_hash + self.peer_id

    @classmethod
    def decode(cls, data: bytes) -> Handshake:
        """Read them; raises ProtocolViolation."""
        size = len(PROTOCOL)
        if data[:size] != PROTOCOL:
            raise ProtocolViolation("that is not the BitTorrent protocol")
        reserved = data[size : size + 8]
        return cls(
            info_hash=bytes(data[size + 8 : size + 8 + HASH]),
            peer_id=bytes(data[size + 8 + HASH :]),
            fast=bool(reserved[FAST_BYTE] & FAST_BIT),
            extensions=bool(reserved[EXTENSION_BYTE] & EXTENSION_BIT),
        )


def simple(kind: int) -> bytes:
    """A message without payload."""
    return HEAD.pack(1, kind)


def indexed(kind: int, piece: int) -> bytes:
    """Have, suggest, allowed fast."""
    return INDEXED.pack(5, kind, piece)


def about_block(kind: int, piece: int, begin: int, length: int) -> bytes:
    """Request, cancel, reject."""
    return ASK.pack(13, kind, piece, begin, length)


def block_head(piece: int, begin: int, length: int) -> bytes:
    """What goes before the bytes of a block."""
    return BLOCK_HEAD.pack(9 + length, PIECE, piece, begin)


def bitfield(have: bytes | bytearray) -> bytes:
    """A bitfield from one byte (0 or 1) a piece."""
    bits = pack_bits(have)
    return HEAD.pack(1 + len(bits), BITFIELD) + bits


def extended(number: int, payload: bytes) -> bytes:
    """A message of the extension protocol: `number` as its receiver wants it."""
    return HEAD.pack(2 + len(payload), EXTENDED) + bytes((number,)) + payload


_OF_BYTE: Final = [bytes(byte >> bit & 1 for bit in range(7, -1, -1)) for byte in range(256)]


def pack_bits(have: bytes | bytearray) -> bytes:
    """Bits, the first piece in the highest, from one byte a piece."""
    if not have:
        return b""
    size = -(-len(have) // 8)
    padded = bytes(have).ljust(size * 8, b"\0")
    # As one number in base 2: the digits are what we have.
    return int(padded.translate(_AS_DIGITS), 2).to_bytes(size, "big")


_AS_DIGITS: Final = bytes([ord("0"), ord("1"), *range(2, 256)])


def unpack_bits(bits: bytes | memoryview, count: int) -> bytearray:
    """One byte (0 or 1) a piece; raises ProtocolViolation for a wrong length or a spare bit."""
    if len(bits) != -(-count // 8):
        raise ProtocolViolation(f"a bitfield of {len(bits)} bytes for {count} pieces")
    have = bytearray(b"".join(map(_OF_BYTE.__getitem__, bits)))
    if any(have[count:]):
        raise ProtocolViolation("a bitfield with a spare bit set")
    del have[count:]
    return have


def allowed_fast_set(info_hash: bytes, host: str, pieces: int, size: int) -> list[int]:
    """The pieces that a peer at `host` may ask for while choked: BEP 6's generator."""
    network = bytes(int(part) for part in host.split(".")[:3]) + b"\0"
    digest, found = network + info_hash, dict[int, None]()
    while len(found) < min(size, pieces):
        digest = hashlib.sha1(digest, usedforsecurity=False).digest()
        for number in struct.unpack("!5I", digest):
            if len(found) < min(size, pieces):
                found[number % pieces] = None
    return list(found)
