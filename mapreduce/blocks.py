"""Intermediate data: runs of sorted pairs, in blocks that bear their checksum.

    block    magic:4  length:4  crc:4  count:4  payload
    payload  msgpack [[keys], [values]]; or `count` records of fixed size

A run is one block behind the other. Keys are bytes; values are what msgpack holds. Blocks and not
records are packed, sent and unpacked: msgpack then works through thousands of records in one call.
The CRC-32C covers the payload and the count; whoever reads a block that fails it has DamagedRun,
and the map that made the run is run again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Final

import google_crc32c
import msgpack

from mapreduce.errors import BadJob, DamagedRun

HEADER: Final = struct.Struct("<4sIII")
COUNT: Final = struct.Struct("<I")
MAGIC: Final = b"MRB1"

# Records a block; a block of large ones is halved until it is no larger than BLOCK_BYTES_MAX.
BLOCK_RECORDS: Final = 8192
BLOCK_BYTES_MAX: Final = 512 * 1024

Pair = tuple[bytes, Any]
Block = tuple[Sequence[bytes], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """Where one sorted run lies. `source` is the index of the map that made it."""

    path: str
    offset: int
    length: int
    count: int
    source: int = -1


def pack(keys: Sequence[bytes], values: Sequence[Any]) -> Iterator[bytes]:
    """The blocks of pairs, in their order; raises BadJob for values that cannot be stored."""
    for start in range(0, len(keys), BLOCK_RECORDS):
        end = start + BLOCK_RECORDS
        yield from _pack_block(keys[start:end], values[start:end])


def _pack_block(keys: Sequence[bytes], values: Sequence[Any]) -> Iterator[bytes]:
    try:
        payload = msgpack.packb([keys, values], use_bin_type=True)
    except (TypeError, OverflowError, ValueError) as error:
        raise BadJob(
            f"a value cannot be stored: {error}; values are bytes, str, int (64 bits), float,"
            " bool, None, and lists and dicts of these"
        ) from None
    if len(payload) > BLOCK_BYTES_MAX and len(keys) > 1:
        middle = len(keys) // 2
        yield from _pack_block(keys[:middle], values[:middle])
        yield from _pack_block(keys[middle:], values[middle:])
    else:
        yield frame(payload, len(keys))


def frame(payload: bytes, count: int) -> bytes:
    """One block."""
    return HEADER.pack(MAGIC, len(payload), _checksum(payload, count), count) + payload


def _checksum(payload: bytes, count: int) -> int:
    return int(google_crc32c.extend(google_crc32c.value(payload), COUNT.pack(count)))


def read_payloads(file: BinaryIO, run: Run) -> Iterator[tuple[bytes, int]]:
    """(payload, count) of each block of a run; raises DamagedRun. The file is shared: it seeks."""
    position, end, seen = run.offset, run.offset + run.length, 0
    while position < end:
        file.seek(position)
        header = file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise _damaged(run, position, "ends early")
        magic, length, crc, count = HEADER.unpack(header)
        if magic != MAGIC or position + HEADER.size + length > end:
            raise _damaged(run, position, "is no block")
        payload = file.read(length)
        if len(payload) < length:
            raise _damaged(run, position, "ends early")
        if _checksum(payload, count) != crc:
            raise _damaged(run, position, "fails its checksum")
        seen += count
        position += HEADER.size + length
        yield payload, count
    if seen != run.count:
        raise _damaged(run, end, f"holds {seen} records instead of {run.count}")


def _damaged(run: Run, position: int, how: str) -> DamagedRun:
    return DamagedRun(f"{run.path} at {position}: {how}", run.source)


def read_blocks(file: BinaryIO, run: Run) -> Iterator[Block]:
    """The pairs of a run, a block at a time."""
    for payload, _ in read_payloads(file, run):
        keys, values = msgpack.unpackb(payload, raw=False, strict_map_key=False)
        yield keys, values


class RunWriter:
    """Writes one run behind the other into a file, and remembers where they lie."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self.position = 0

    def write(self, blocks: Iterable[bytes], count: int, source: int = -1) -> Run:
        """One run of `count` records."""
        began = self.position
        for block in blocks:
            self._file.write(block)
            self.position += len(block)
        return Run(self._path, began, self.position - began, count, source)

    def write_pairs(self, pairs: Iterable[Pair], source: int = -1) -> Run:
        """One run of pairs in their order, of which only a block is held at a time."""
        began, count = self.position, 0
        pairs = iter(pairs)
        while portion := list(islice(pairs, BLOCK_RECORDS)):
            keys, values = zip(*portion, strict=True)
            for block in pack(keys, values):
                self._file.write(block)
                self.position += len(block)
            count += len(portion)
        return Run(self._path, began, self.position - began, count, source)
