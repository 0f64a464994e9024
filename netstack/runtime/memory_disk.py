"""Storage in memory, for the simulation: it remembers what was synced, and a crash takes the rest.

What an unsynced write leaves behind after a power cut is not "nothing": some blocks reached the
platter and some did not. `crash` keeps a random part of the unsynced writes of each file, in
units of SECTOR bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

# What a disk writes at once or not at all.
SECTOR_BYTES = 512

# More than any simulated node writes.
CAPACITY_BYTES = 1 << 34


class _File:
    """Contents now, and how to undo each change since the last sync, the newest last."""

    __slots__ = ("data", "undo")

    def __init__(self) -> None:
        self.data = bytearray()
        self.undo: list[_Change] = []


class _Change:
    """One unsynced write: where, what it wrote, what was there, how long the file was."""

    __slots__ = ("before", "offset", "size_before", "written")

    def __init__(self, offset: int, written: bytes | None, before: bytes, size_before: int) -> None:
        self.offset = offset
        self.written = written
        self.before = before
        self.size_before = size_before


class MemoryStorage:
    """A node's simulated disk. It outlives the node's crashes."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._syncs_fail = False

    def __repr__(self) -> str:
        return f"<MemoryStorage files={len(self._files)}>"

    def open(self, path: str) -> _File:
        """The file itself is the handle."""
        return self._files.setdefault(path, _File())

    def pread(self, handle: _File, offset: int, count: int) -> bytes:
        """A copy of the bytes."""
        return bytes(handle.data[offset : offset + count])

    def pwrite(self, handle: _File, offset: int, data: bytes) -> None:
        """Not durable until sync."""
        before = bytes(handle.data[offset : offset + len(data)])
        handle.undo.append(_Change(offset, bytes(data), before, len(handle.data)))
        _write(handle.data, offset, data)

    def truncate(self, handle: _File, size: int) -> None:
        """Not durable until sync."""
        before = bytes(handle.data[size:])
        handle.undo.append(_Change(size, None, before, len(handle.data)))
        _resize(handle.data, size)

    def size(self, handle: _File) -> int:
        """Bytes in the file."""
        return len(handle.data)

    def sync(self, handle: _File) -> None:
        """All so far is durable."""
        if self._syncs_fail:
            raise OSError(errno.EIO, "the process was killed here")
        handle.undo.clear()

    def close(self, handle: _File) -> None:
        """Nothing to release."""

    def rename(self, old: str, new: str) -> None:
        """Atomic and durable, as Disk asks right after."""
        self._files[new] = self._files.pop(old)

    def remove(self, path: str) -> None:
        """Delete a file."""
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        del self._files[path]

    def list(self, folder: str) -> list[str]:
        """Names of the files in `folder`, sorted."""
        prefix = folder + "/" if folder else ""
        names = (path.removeprefix(prefix) for path in self._files if path.startswith(prefix))
        return sorted(name for name in names if "/" not in name)

    def sync_folder(self, folder: str) -> None:
        """Names are durable at once here."""

    def free_bytes(self) -> int:
        """Room left."""
        return CAPACITY_BYTES - sum(len(file.data) for file in self._files.values())

    def run_unsynced(self, work: Callable[[], object]) -> None:
        """Do as much of `work` as a process that is killed at its next sync would have done."""
        self._syncs_fail = True
        try:
            with contextlib.suppress(Exception):
                work()
        finally:
            self._syncs_fail = False

    def crash(self, rng: random.Random) -> None:
        """Lose what was not synced, as a power cut does: a random part of it may have been kept."""
        for path in sorted(self._files):
            file = self._files[path]
            changes, file.undo = file.undo, []
            for change in reversed(changes):
                _resize(file.data, max(change.offset, change.size_before))
                _write(file.data, change.offset, change.before)
                _resize(file.data, change.size_before)
            for change in changes:
                if change.written is None or rng.random() < 0.5:
                    continue
                for start in range(0, len(change.written), SECTOR_BYTES):
                    if rng.random() < 0.5:
                        sector = change.written[start : start + SECTOR_BYTES]
                        _write(file.data, change.offset + start, sector)


def _write(data: bytearray, offset: int, new: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(new)] = new


def _resize(data: bytearray, size: int) -> None:
    if len(data) > size:
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))
