"""Replicas read where they lie: for a process beside a chunk server, without asking it.

A chunk under its name is whole and never changes (chunk_files.py), so whoever may read the folder
may read the chunk, with the same checksums: what does not match is not handed out. What cannot be
read here, because it is being fetched, damaged or gone, is asked of the servers as by anyone else;
the server finds the damage when it is asked, or when it scrubs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mapreduce.store import blocks
from mapreduce.store.blocks import BLOCK_BYTES, Sums
from mapreduce.store.chunk_files import chunk_path
from mapreduce.store.errors import Damaged
from mapreduce.store.model import ChunkRecord

# Sums of so many chunks are kept: 4 KiB for a chunk of 64 MiB.
SUMS_KEPT: Final = 64


class OwnDisk:
    """The disk of the chunk server beside this process.

    Args:
        node: that server's name.
        folder: where its disk begins.
    """

    def __init__(self, node: str, folder: Path) -> None:
        self.node = node
        self._folder = folder
        self._sums: dict[tuple[str, int], Sums] = {}

    def __repr__(self) -> str:
        return f"<OwnDisk of {self.node} sums={len(self._sums)}>"

    def read(self, record: ChunkRecord, offset: int, length: int) -> bytes | None:
        """Bytes of a chunk that match their checksums; None if they cannot be had here."""
        if self.node not in record.nodes:
            return None
        try:
            with _reading(self._folder / chunk_path(record.chunk)) as file:
                return self._read(file, record, offset, length)
        except (OSError, Damaged, ValueError):
            self._sums.pop((record.chunk, record.version), None)
            return None

    def _read(self, file: int, record: ChunkRecord, offset: int, length: int) -> bytes | None:
        sums = self._sums_of(file, record)
        if (sums.chunk, sums.version) != (record.chunk, record.version):
            return None
        first = offset // BLOCK_BYTES
        begin, end = first * BLOCK_BYTES, min(offset + length, sums.length)
        data = os.pread(file, min(blocks.blocks_of(end) * BLOCK_BYTES, sums.length) - begin, begin)
        for i, at in enumerate(range(0, len(data), BLOCK_BYTES)):
            sums.check(first + i, data[at : at + BLOCK_BYTES])
        found = data[offset - begin : end - begin]
        return found if len(found) == length else None

    def _sums_of(self, file: int, record: ChunkRecord) -> Sums:
        key = (record.chunk, record.version)
        found = self._sums.get(key)
        if found is None:
            size = os.fstat(file).st_size
            at = max(0, size - blocks.TRAILER_BYTES)
            behind = blocks.read_trailer(size, os.pread(file, blocks.TRAILER_BYTES, at))
            found = blocks.parse(os.pread(file, behind, size - behind))
            while len(self._sums) >= SUMS_KEPT:
                del self._sums[next(iter(self._sums))]
            self._sums[key] = found
        return found


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)
