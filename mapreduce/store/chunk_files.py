"""The chunks on one disk: written in order, synced, renamed into place, checked at every read.

    parts/<file>-<index>-<version>     being written; nothing of it is promised; gone at a restart
    chunks/<file>-<index>              whole: data, block sums, trailer (blocks.py)

A chunk under its name was synced before it was named, so a power cut leaves all of it or none.
What is known of a chunk without reading its data is kept in memory: 4 bytes for each 64 KiB.

All calls block and come from one thread, an executor's. Errors of the disk are OSError; a block
that does not match its checksum is Damaged, and the chunk is marked so until it is replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from mapreduce.store import blocks
from mapreduce.store.blocks import BLOCK_BYTES, Sums
from mapreduce.store.errors import Damaged
from netstack.runtime.disk import Disk, DiskFile

PARTS, WHOLE = "parts", "chunks"

# How much of a chunk is read at a time to verify it.
VERIFY_BYTES = 16 * BLOCK_BYTES


class OutOfOrder(Exception):
    """A piece that does not follow what is here, or a chunk that nobody began."""


class Absent(Exception):
    """No such chunk is here, or not in this version."""


@dataclass(slots=True)
class _Part:
    """A chunk that is being written."""

    file: DiskFile
    path: str
    version: int
    length: int
    sums: bytearray


class ChunkFiles:
    """The chunks of one node's disk.

    `held` has those that are whole; `damaged` names those of them whose bytes were found changed.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._parts: dict[str, _Part] = {}
        self.held: dict[str, Sums] = {}
        self.damaged: set[str] = set()
        self.unreadable: list[str] = []  # names whose trailers were no good when this began

    def __repr__(self) -> str:
        return f"<ChunkFiles held={len(self.held)} parts={len(self._parts)}>"

    def recover(self) -> None:
        """Learn what is here; half-written parts are removed, and what has no good trailer."""
        for name in self._disk.list(PARTS):
            self._disk.remove(f"{PARTS}/{name}")
        for name in self._disk.list(WHOLE):
            path = f"{WHOLE}/{name}"
            try:
                sums = self._read_sums(path)
                if _name(sums.chunk) != name:
                    raise Damaged("it is under another chunk's name")
            except (Damaged, OSError, ValueError):
                self.unreadable.append(name)
                self._disk.remove(path)
            else:
                self.held[sums.chunk] = sums

    def _read_sums(self, path: str) -> Sums:
        with self._disk.open(path) as file:
            tail = file.read_at(max(0, file.size - blocks.TRAILER_BYTES), blocks.TRAILER_BYTES)
            behind = blocks.read_trailer(file.size, tail)
            return blocks.parse(file.read_at(file.size - behind, behind))

    # -- writing

    def write(self, chunk: str, version: int, offset: int, data: bytes) -> None:
        """The next piece; one that is here already is taken for a repetition.

        Raises OutOfOrder, OSError (then the part is gone).
        """
        part = self._parts.get(chunk)
        if offset == 0 and (part is None or part.version < version or not part.length):
            self.drop_part(chunk)
            part = self._begin(chunk, version)
        if part is None or part.version != version:
            raise OutOfOrder(f"{chunk} version {version} is not being written here")
        if offset + len(data) <= part.length:
            return
        if offset != part.length or offset % BLOCK_BYTES:
            raise OutOfOrder(f"{chunk}: a piece at {offset} does not follow {part.length} bytes")
        try:
            part.file.write_at(offset, data)
        except OSError:
            self.drop_part(chunk)
            raise
        part.sums += blocks.block_sums(data)
        part.length += len(data)

    def _begin(self, chunk: str, version: int) -> _Part:
        path = f"{PARTS}/{_name(chunk)}-{version}"
        file = self._disk.open(path)
        part = self._parts[chunk] = _Part(file, path, version, 0, bytearray())
        try:
            file.truncate(0)
        except OSError:
            self.drop_part(chunk)
            raise
        return part

    def finish(self, chunk: str, version: int, length: int) -> None:
        """Sync it and give it its name; again, it changes nothing.

        Raises OutOfOrder, OSError (then the part is gone).
        """
        if self.good(chunk, version, length) and chunk not in self._parts:
            return
        part = self._parts.get(chunk)
        if part is None or (part.version, part.length) != (version, length):
            raise OutOfOrder(f"{chunk} version {version} was not written to {length} bytes here")
        sums = Sums(chunk, version, length, bytes(part.sums))
        try:
            part.file.write_at(length, sums.trailer())
            self._disk.failpoint("chunks.finish.before-sync")
            part.file.sync()
            self._disk.failpoint("chunks.finish.before-rename")
            part.file.close()
            self._disk.rename(part.path, chunk_path(chunk))
        except OSError:
            self.drop_part(chunk)
            raise
        del self._parts[chunk]
        self.held[chunk] = sums
        self.damaged.discard(chunk)

    def parts(self) -> dict[str, int]:
        """What is being written here, and in which version."""
        return {chunk: part.version for chunk, part in self._parts.items()}

    def drop_part(self, chunk: str) -> None:
        """Forget what was written of a chunk that is not whole."""
        part = self._parts.pop(chunk, None)
        if part is not None:
            if part.file.users:
                part.file.close()
            with contextlib.suppress(OSError):
                self._disk.remove(part.path)

    # -- reading

    def read(self, chunk: str, version: int, offset: int, length: int) -> bytes:
        """Bytes that match their checksums; fewer at the chunk's end. Raises Absent, Damaged."""
        sums = self._sums(chunk, version)
        end = min(offset + length, sums.length)
        if offset >= end:
            return b""
        first = offset // BLOCK_BYTES
        begin = first * BLOCK_BYTES
        data = self._checked(sums, first, min(blocks.blocks_of(end) * BLOCK_BYTES, sums.length))
        return data[offset - begin : end - begin]

    def verify(self, chunk: str, version: int) -> Iterator[int]:
        """Read and check all of it; yields the bytes of each step. Raises Absent, Damaged."""
        sums = self._sums(chunk, version)
        for begin in range(0, sums.length, VERIFY_BYTES):
            end = min(begin + VERIFY_BYTES, sums.length)
            self._checked(sums, begin // BLOCK_BYTES, end)
            yield end - begin

    def good(self, chunk: str, version: int, length: int) -> bool:
        """Whether it is here, of this version, and not known to be damaged."""
        held = self.held.get(chunk)
        here = held is not None and (held.version, held.length) == (version, length)
        return here and chunk not in self.damaged

    def _sums(self, chunk: str, version: int) -> Sums:
        sums = self.held.get(chunk)
        if sums is None:
            raise Absent(f"{chunk} is not here")
        if sums.version != version:
            raise Absent(f"{chunk} is here in version {sums.version}, not {version}")
        return sums

    def _checked(self, sums: Sums, first: int, end: int) -> bytes:
        """The data from a block on up to `end`, a block's end or the chunk's."""
        begin = first * BLOCK_BYTES
        try:
            with self._disk.open(chunk_path(sums.chunk)) as file:
                data = file.read_at(begin, end - begin)
            if len(data) != end - begin:
                raise Damaged(f"{sums.chunk} is shorter than it was")
            for i, at in enumerate(range(0, len(data), BLOCK_BYTES)):
                sums.check(first + i, data[at : at + BLOCK_BYTES])
        except (Damaged, OSError) as error:
            self.damaged.add(sums.chunk)
            raise Damaged(str(error)) from None
        return data

    # -- deleting

    def delete(self, chunk: str) -> None:
        """Remove a whole chunk; raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.remove(chunk_path(chunk))
        self.held.pop(chunk, None)
        self.damaged.discard(chunk)


def chunk_path(chunk: str) -> str:
    """Where on its disk a whole chunk lies."""
    return f"{WHOLE}/{_name(chunk)}"


def _name(chunk: str) -> str:
    return chunk.replace("/", "-")
