"""Files, and everything that goes wrong with them.

    Disk / DiskFile     what a daemon uses: files replaced atomically, or written in place
    DiskFaults          what is wrong at the moment; set by the operator or the simulation
    Storage             the few calls underneath: the operating system's, or a map in memory

In *power-cut* mode a write stays in this process until `sync`: kill -9 then loses exactly what a
power cut would lose, the page cache included, and reads see it all the same. Without it, kill -9
loses nothing that was written, which proves nothing about syncing.

All calls block, and are made from one thread at a time a file. Faults raise OSError with the
errno of the real thing; a caller that handles those handles the real ones.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn, Protocol


class Storage(Protocol):
    """The calls under a Disk. Paths are relative, with forward slashes; errors are OSError."""

    def open(self, path: str) -> Any:
        """A handle; the file and its folders are made if missing."""

    def pread(self, handle: Any, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""

    def pwrite(self, handle: Any, offset: int, data: bytes) -> None:
        """All of `data` at `offset`."""

    def truncate(self, handle: Any, size: int) -> None:
        """Cut or extend with zeros."""

    def size(self, handle: Any) -> int:
        """Bytes in the file."""

    def sync(self, handle: Any) -> None:
        """Make the file's data outlive a power cut."""

    def forget(self, handle: Any) -> None:
        """Lose what was not synced, where that is possible."""

    def close(self, handle: Any) -> None:
        """Release the handle."""

    def rename(self, old: str, new: str) -> None:
        """Atomically, replacing `new`."""

    def remove(self, path: str) -> None:
        """Delete a file."""

    def list(self, folder: str) -> list[str]:
        """Names of the files in `folder`, sorted; none if it does not exist."""

    def sync_folder(self, folder: str) -> None:
        """Make names outlive a power cut."""

    def free_bytes(self) -> int:
        """Room left."""


@dataclass(slots=True)
class DiskFaults:
    """What is wrong with the disk now."""

    power_cut: bool = False  # unsynced writes live in the process and die with it
    torn: bool = False  # the next sync writes half of what it should, then fails: a torn write
    eio_at: int = 0  # the n-th change or sync from now fails with EIO, once; 0: none does
    sync_error: bool = False  # the next sync fails with EIO; what it should have written is lost
    sync_lies: bool = False  # syncs report success and write nothing
    lie_once: bool = False  # the next sync does
    full: bool = False  # writes fail with ENOSPC
    slow_s: float = 0.0  # each sync takes this much longer
    # How often which of them struck.
    counts: Counter[str] = field(default_factory=Counter)

    def apply(self, values: dict[str, Any]) -> None:
        """Set some fields; raises ValueError naming what it does not know."""
        types: dict[str, Any] = {name: type(value) for name, value in _GOOD.items()}
        for name, value in values.items():
            if name not in types:
                raise ValueError(f"a disk has no fault {name!r}; it has {', '.join(sorted(types))}")
            wanted = types[name]
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise ValueError(f"disk.{name} is a {wanted.__name__}, not {value!r}")
            if wanted is not bool and not 0 <= value < float("inf"):
                raise ValueError(f"disk.{name} must be 0 or more, not {value!r}")
        for name, value in values.items():
            setattr(self, name, value)

    def heal(self) -> None:
        """A good disk again, except for power_cut: that is a mode, not a fault."""
        mode = self.power_cut
        for name, value in _GOOD.items():
            setattr(self, name, value)
        self.power_cut = mode
        self.counts.clear()

    def describe(self) -> dict[str, Any]:
        """The fields that differ from a good disk."""
        return {n: getattr(self, n) for n, good in _GOOD.items() if getattr(self, n) != good}


_GOOD = {field.name: field.default for field in fields(DiskFaults) if field.name != "counts"}


class Disk:
    """The files of one node.

    Args:
        storage: where they lie.
        pause: how to spend the time of a slow disk (time.sleep; virtual in the simulation).
    """

    def __init__(self, storage: Storage, pause: Callable[[float], None]) -> None:
        self._storage = storage
        self.pause = pause
        self._open: dict[str, DiskFile] = {}
        self.faults = DiskFaults()
        self.failpoint: Callable[[str], None] = lambda name: None  # failpoints.py

    def __repr__(self) -> str:
        return f"<Disk {self._storage!r} faults={self.faults.describe()}>"

    def open(self, path: str) -> DiskFile:
        """The file at `path`, made if missing; one object for all who have it open."""
        file = self._open.get(path)
        if file is None:
            file = self._open[path] = DiskFile(self, self._storage, path)
        file.users += 1
        return file

    def read(self, path: str) -> bytes:
        """All of a file; raises FileNotFoundError."""
        folder, _, name = path.rpartition("/")
        if name not in self._storage.list(folder):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        with self.open(path) as file:
            return file.read_at(0, file.size)

    def replace(self, path: str, data: bytes) -> None:
        """Make `path` hold `data`, or, if anything fails, what it held before."""
        with self.replacing(path) as file:
            file.write_at(0, data)

    @contextlib.contextmanager
    def replacing(self, path: str) -> Iterator[DiskFile]:
        """A file to write; it takes the place of `path`, synced, when the block ends well."""
        temporary = path + ".new"
        with self.open(temporary) as file:
            file.truncate(0)
            yield file
            file.sync()
        self.rename(temporary, path)

    def rename(self, old: str, new: str) -> None:
        """Atomically, and durably."""
        self.before_write()
        self._storage.rename(old, new)
        self._open.pop(new, None)
        if (file := self._open.pop(old, None)) is not None:
            self._open[new], file.path = file, new
        self._storage.sync_folder(new.rpartition("/")[0])

    def remove(self, path: str) -> None:
        """Delete a file, durably; raises FileNotFoundError."""
        self._storage.remove(path)
        self._open.pop(path, None)
        self._storage.sync_folder(path.rpartition("/")[0])

    def list(self, folder: str = "") -> list[str]:
        """Names of the files in `folder`, sorted."""
        return self._storage.list(folder)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        folder, _, name = path.rpartition("/")
        return name in self._storage.list(folder)

    def free_bytes(self) -> int:
        """Room left; none while the disk is said to be full."""
        return 0 if self.faults.full else self._storage.free_bytes()

    # -- called by DiskFile

    def before_write(self) -> None:
        """Raises what is to fail."""
        if self.faults.full:
            self.faults.counts["full"] += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.count_down()

    def before_sync(self) -> bool:
        """Whether to really sync; raises what is to fail."""
        faults = self.faults
        if faults.slow_s:
            faults.counts["slow"] += 1
            self.pause(faults.slow_s)
        self.count_down()
        if faults.sync_error:
            faults.sync_error = False
            faults.counts["sync_error"] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        lies, faults.lie_once = faults.sync_lies or faults.lie_once, False
        if lies:
            faults.counts["lies"] += 1
        return not lies

    def count_down(self) -> None:
        """To the call that is to fail, and fail it."""
        if self.faults.eio_at:
            self.faults.eio_at -= 1
            if not self.faults.eio_at:
                self.faults.counts["eio"] += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def closed(self, file: DiskFile) -> None:
        """The next to open it opens it anew."""
        if self._open.get(file.path) is file:
            del self._open[file.path]


class DiskFile:
    """One open file. In power-cut mode its changes wait in `_pending` for the next sync."""

    def __init__(self, disk: Disk, storage: Storage, path: str) -> None:
        self.path = path
        self.users = 0
        self._disk = disk
        self._storage = storage
        self._handle = storage.open(path)
        self._size = storage.size(self._handle)
        self._pending: list[tuple[int, bytes | None]] = []  # (offset, data), or (size, None)
        self._last_write = (0, 0)  # offset, length; of what a torn sync takes back

    def __enter__(self) -> DiskFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DiskFile {self.path} size={self._size} pending={len(self._pending)}>"

    @property
    def size(self) -> int:
        """Bytes in the file, unsynced ones included."""
        return self._size

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`, unsynced ones included."""
        if not self._pending:
            return self._storage.pread(self._handle, offset, count)
        stored = self._storage.size(self._handle)
        image = bytearray(self._storage.pread(self._handle, 0, stored))
        for position, data in self._pending:
            apply_change(image, position, data)
        return bytes(image[offset : offset + count])

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`."""
        self._disk.before_write()
        if not data:
            return
        self._change(offset, bytes(data))
        self._size = max(self._size, offset + len(data))
        self._last_write = (offset, len(data))

    def append(self, data: bytes) -> None:
        """Write at the end."""
        self.write_at(self._size, data)

    def truncate(self, size: int) -> None:
        """Cut the file, or extend it with zeros."""
        self._disk.before_write()
        self._change(size, None)
        self._size = size
        self._last_write = (0, 0)

    def sync(self) -> None:
        """Return when all writes so far outlive a power cut; on an error, nobody knows which do."""
        try:
            if not self._disk.before_sync():
                return  # what waits is still in this process
        except OSError:
            self._forget()
            raise
        (offset, length), self._last_write = self._last_write, (0, 0)
        if self._disk.faults.torn and length:
            self._disk.faults.torn = False
            self._disk.faults.counts["torn"] += 1
            self._tear(offset, length)
        self._write_pending()
        self._storage.sync(self._handle)

    def close(self) -> None:
        """The last to close releases the file; what waits reaches it, as at a clean exit."""
        self.users -= 1
        if not self.users:
            self._write_pending()
            self._disk.closed(self)
            self._storage.close(self._handle)

    def _change(self, position: int, data: bytes | None) -> None:
        if self._pending or self._disk.faults.power_cut:
            self._pending.append((position, data))
        else:
            self._store(position, data)

    def _store(self, position: int, data: bytes | None) -> None:
        if data is None:
            self._storage.truncate(self._handle, position)
        else:
            self._storage.pwrite(self._handle, position, data)

    def _write_pending(self) -> None:
        pending, self._pending = self._pending, []
        for position, data in pending:
            self._store(position, data)

    def _tear(self, offset: int, length: int) -> NoReturn:
        """Half of the first write that waits reaches the disk; of the last one, if none waits."""
        for position, data in self._pending:
            if data is not None:
                self._store(position, data[: len(data) // 2])
                break
            self._store(position, None)
        else:
            # It was written already: take back the half that a power cut would have taken.
            half = length // 2
            self._store(offset + half, bytes(length - half))
        self._storage.sync(self._handle)
        self._forget()
        raise OSError(errno.EIO, "torn write")

    def _forget(self) -> None:
        """Lose what could not be synced; so does the kernel."""
        self._pending.clear()
        self._storage.forget(self._handle)
        self._size = self._storage.size(self._handle)
        self._last_write = (0, 0)


def apply_change(image: bytearray, position: int, data: bytes | None) -> None:
    """Write `data` at `position` of a file's contents; None: let the file end there."""
    if data == b"":
        return  # which makes no file longer
    image.extend(bytes(max(0, position - len(image))))
    if data is None:
        del image[position:]
    else:
        image[position : position + len(data)] = data
