"""The file from which a restarted peer brings its keys back.

    chord.log    header ("RDH1"), then   length:4  crc32c:4  payload     one a batch; then zeros
    payload      msgpack [[key, value, version, tag, expires], …], or [key] for a key given away

A batch is one write and one sync; who waits for it is told afterwards. The file is written anew
when more than half of it is history.

A record that is not whole ends the reading: a torn tail was never acknowledged, and for a damaged
middle the other replicas are there: a restarted node answers for nothing before it has compared
its range with them. What is cut off is kept beside the log, for whoever wants to know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import google_crc32c
import msgpack

from dht.chord.records import Record
from netstack.runtime.disk import Disk, DiskFile

PATH: Final = "chord.log"
DAMAGED: Final = "chord.log.damaged"
MAGIC: Final = b"RDH1"
HEADER: Final = struct.Struct(">II")

# Below this a log is not worth shortening.
SHORTEN_BYTES: Final = 1024 * 1024

# Zeros that are written at a time, to be overwritten by batches.
GROW_BYTES: Final = 256 * 1024

Item = Record | bytes
"""A record to keep, or a key that was given away."""


class Journal:
    """The open log. Calls block; make them from one thread at a time."""

    def __init__(self, disk: Disk, file: DiskFile, end: int) -> None:
        self._disk = disk
        self._file = file
        self._end = end
        self.syncs = 0
        # Kept and used again it is twice as fast as `packb`, which makes one a call; one a journal,
        # since several of one process may be written at a time.
        self._packer = msgpack.Packer(use_bin_type=True)

    def __repr__(self) -> str:
        return f"<Journal {self._end} B, {self.syncs} syncs>"

    @classmethod
    def open(cls, disk: Disk) -> tuple[Journal, list[Item], int]:
        """(journal, what it holds in order, bytes that had to be cut off); raises OSError."""
        file = disk.open(PATH)
        data = file.read_at(0, file.size)
        items: list[Item] = []
        end = _replay(data, items) if data.startswith(MAGIC) else 0
        rest = data[end:].rstrip(b"\0")
        if rest:
            disk.replace(DAMAGED, rest)
            file.truncate(end)
        if end == 0:
            end = len(MAGIC)
            file.write_at(0, MAGIC)
        file.sync()
        return cls(disk, file, end), items, len(rest)

    @property
    def size(self) -> int:
        """Bytes of the log."""
        return self._end

    def append(self, items: Sequence[Item]) -> None:
        """Make a batch durable. Raises OSError; after ENOSPC nothing of it was kept."""
        batch = self._framed(items)
        if self._end + len(batch) > self._file.size:
            self._grow(len(batch))
        self._file.write_at(self._end, batch)
        self._disk.failpoint("dht.append.before-sync")
        self._file.sync()
        self._end += len(batch)
        self.syncs += 1

    def _grow(self, needed: int) -> None:
        """More zeros at the end: to overwrite them changes no metadata, and syncs far faster."""
        size = self._file.size
        try:
            self._file.write_at(size, bytes(max(GROW_BYTES, needed)))
        except OSError:
            self._file.truncate(size)
            raise
        self._file.sync()

    def rewrite(self, records: Iterable[Record]) -> None:
        """Put a log of just these in its place."""
        with self._disk.replacing(PATH) as fresh:
            fresh.write_at(0, MAGIC)
            batch: list[Item] = []
            for record in records:
                batch.append(record)
                if len(batch) == 256:
                    fresh.append(self._framed(batch))
                    batch.clear()
            if batch:
                fresh.append(self._framed(batch))
            end = fresh.size
        self._file.close()
        self._file, self._end = self._disk.open(PATH), end

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _framed(self, items: Sequence[Item]) -> bytes:
        fields = [[i] if isinstance(i, bytes) else list(i) for i in items]
        payload: bytes = self._packer.pack(fields)
        return HEADER.pack(len(payload), google_crc32c.value(payload)) + payload


def _replay(data: bytes, items: list[Item]) -> int:
    """Append what is whole to `items`; returns where it ends."""
    at = len(MAGIC)
    while at + HEADER.size <= len(data):
        length, crc = HEADER.unpack_from(data, at)
        payload = data[at + HEADER.size : at + HEADER.size + length]
        if not length or len(payload) < length or google_crc32c.value(payload) != crc:
            break
        items += [_item(fields) for fields in msgpack.unpackb(payload)]
        at += HEADER.size + length
    return at


def _item(fields: list[Any]) -> Item:
    key: bytes = fields[0]
    return key if len(fields) == 1 else Record(*fields)
