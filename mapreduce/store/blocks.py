"""The form of a chunk on a disk: its bytes, then a checksum a block, then what it is.

    data | CRC-32C of each 64 KiB block, 4 bytes each | trailer, 64 bytes
    trailer   magic 8 · version u64 · length u64 · blocks u32 · file 16 · index u32 · CRC-32C

The trailer's checksum covers the block sums and itself. So a chunk says what it is without the
metadata, and no bit of it can flip unseen: one in a block fails that block, one behind the data
fails the whole. The block is as large as in GFS (§5.2): reading a little checks little, and the
sums are a sixteen-thousandth of the data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import google_crc32c

from mapreduce.store.errors import Damaged

BLOCK_BYTES: Final = 64 * 1024
MAGIC: Final = b"ringchk1"
_TRAILER: Final = struct.Struct(">8sQQI16sI12xI")
TRAILER_BYTES: Final = _TRAILER.size
SUM_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Sums:
    """What is known of a chunk's bytes without reading them."""

    chunk: str
    version: int
    length: int
    sums: bytes

    def check(self, block: int, data: bytes) -> None:
        """Raises Damaged unless `data` is what was written as that block."""
        at = block * SUM_BYTES
        if crc(data) != self.sums[at : at + SUM_BYTES]:
            raise Damaged(f"block {block} of {self.chunk} does not match its checksum")

    def trailer(self) -> bytes:
        """All that stands behind the data."""
        file, _, index = self.chunk.partition("/")
        body = _TRAILER.pack(
            MAGIC,
            self.version,
            self.length,
            len(self.sums) // SUM_BYTES,
            file.encode(),
            int(index, 16),
            0,
        )[:-SUM_BYTES]
        return self.sums + body + crc(self.sums + body)


def crc(data: bytes) -> bytes:
    """CRC-32C, as it is stored."""
    return int(google_crc32c.value(data)).to_bytes(SUM_BYTES, "big")


def block_sums(data: bytes) -> bytes:
    """The checksums of `data`, which begins at a block's beginning."""
    view = memoryview(data)
    blocks = (view[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES))
    return b"".join(crc(bytes(block)) for block in blocks)


def blocks_of(length: int) -> int:
    """How many blocks so many bytes have."""
    return -(-length // BLOCK_BYTES)


def stored_bytes(length: int) -> int:
    """What a chunk of `length` bytes takes on a disk."""
    return length + blocks_of(length) * SUM_BYTES + TRAILER_BYTES


def read_trailer(size: int, tail: bytes) -> int:
    """How many bytes from the end of a file of `size` hold its sums and trailer.

    tail: its last TRAILER_BYTES. Raises Damaged.
    """
    if len(tail) != TRAILER_BYTES or not tail.startswith(MAGIC):
        raise Damaged("there is no trailer")
    _, _, length, blocks, _, _, _ = _TRAILER.unpack(tail)
    if blocks != blocks_of(length) or size != stored_bytes(length):
        raise Damaged("the trailer does not fit the file")
    return int(blocks) * SUM_BYTES + TRAILER_BYTES


def parse(footer: bytes) -> Sums:
    """Sums and trailer, as `Sums.trailer` made them; raises Damaged."""
    if crc(footer[:-SUM_BYTES]) != footer[-SUM_BYTES:]:
        raise Damaged("the sums do not match their own checksum")
    sums, trailer = footer[:-TRAILER_BYTES], footer[-TRAILER_BYTES:]
    _, version, length, _, file, index, _ = _TRAILER.unpack(trailer)
    return Sums(f"{file.decode()}/{index:08x}", version, length, sums)
