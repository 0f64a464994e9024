"""Storage in memory, for the simulation: it remembers what was synced, and a crash takes the rest.

What an unsynced write leaves behind after a power cut is not "nothing": some blocks reached the
platter and some did not. `crash` keeps a random part of the unsynced writes of each file, in
units of SECTOR_BYTES.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from netstack.runtime.disk import apply_change

if TYPE_CHECKING:
    import random

# What a disk writes at once or not at all.
SECTOR_BYTES = 512

# More than any simulated node writes.
CAPACITY_BYTES = 1 << 34


class _File:
    """Contents now, and how to undo each change since the last sync, the newest last."""

    __slots__ = ("data", "undo")

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.undo: list[_Change] = []


class _Change(NamedTuple):
    """One unsynced change: where, what it wrote (None: the file was to end there)."""

    offset: int
    written: bytes | None
    before: bytes  # what was there
    size_before: int


class MemoryStorage:
    """A node's simulated disk. It outlives the node's crashes."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._syncs_fail = False

    def __repr__(self) -> str:
        return f"<MemoryStorage files={len(self._files)}>"

    def open(self, path: str) -> _File:
        """The file itself is the handle."""
        return self._files.setdefault(path, _File(bytearray()))

    def pread(self, handle: _File, offset: int, count: int) -> bytes:
        """A copy of the bytes."""
        return bytes(handle.data[offset : offset + count])

    def pwrite(self, handle: _File, offset: int, data: bytes) -> None:
        """Not durable until sync."""
        before = bytes(handle.data[offset : offset + len(data)])
        handle.undo.append(_Change(offset, bytes(data), before, len(handle.data)))
        apply_change(handle.data, offset, data)

    def truncate(self, handle: _File, size: int) -> None:
        """Not durable until sync."""
        before = bytes(handle.data[size:])
        handle.undo.append(_Change(size, None, before, len(handle.data)))
        apply_change(handle.data, size, None)

    def size(self, handle: _File) -> int:
        """Bytes in the file."""
        return len(handle.data)

    def sync(self, handle: _File) -> None:
        """All so far is durable."""
        if self._syncs_fail:
            raise OSError(errno.EIO, "the process was killed here")
        handle.undo.clear()

    def forget(self, handle: _File) -> None:
        """What was not synced is not there any more."""
        while handle.undo:
            change = handle.undo.pop()
            apply_change(handle.data, change.size_before, None)
            apply_change(handle.data, change.offset, change.before)

    def close(self, handle: _File) -> None:
        """Nothing to release."""

    def rename(self, old: str, new: str) -> None:
        """Atomic and durable, as Disk asks right after."""
        self._files[new] = self._take(old)

    def remove(self, path: str) -> None:
        """Delete a file."""
        self._take(path)

    def _take(self, path: str) -> _File:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._files.pop(path)

    def paths(self) -> list[str]:
        """Of all files, sorted."""
        return sorted(self._files)

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
        """Lose what was not synced, as a power cut does: a random part of it may have been kept.

        The files are new ones then: a handle of before shows what is no longer on the disk.
        """
        before, self._files = self._files, {}
        for path, file in sorted(before.items()):
            changes = file.undo.copy()
            self.forget(file)
            after = self._files[path] = _File(bytearray(file.data))
            for change in changes:
                if change.written is None or rng.random() < 0.5:
                    continue
                for start in range(0, len(change.written), SECTOR_BYTES):
                    if rng.random() < 0.5:
                        sector = change.written[start : start + SECTOR_BYTES]
                        apply_change(after.data, change.offset + start, sector)
