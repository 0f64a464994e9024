"""Disks for tests: on both kinds of storage, watched, slowed, and killed between two calls."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netstack.runtime.disk import Disk, DiskFile, Storage
from netstack.runtime.memory_disk import MemoryStorage
from netstack.runtime.os_disk import OsStorage

KINDS = ("memory", "os")

# The calls of a Storage that change something.
CHANGES = frozenset({"pwrite", "truncate", "sync", "rename", "remove", "sync_folder"})


class Killed(BaseException):
    """kill -9, at this very call."""


class Watched:
    """A storage that writes down each change, and may die at one of them."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.calls: list[tuple[Any, ...]] = []
        self.die_at = 0
        self._names: dict[int, str] = {}

    def open(self, path: str) -> Any:
        handle = self.inner.open(path)
        self._names[id(handle)] = path
        return handle

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.inner, name)
        return self._watch(name, call) if name in CHANGES else call

    def _watch(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            self.calls.append((name, *(self._names.get(id(arg), arg) for arg in args)))
            if self.die_at and len(self.calls) >= self.die_at:
                raise Killed
            return call(*args)

        return watched


class Place:
    """A disk of one kind, and the lives of the process that uses it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.storage: Any = MemoryStorage() if kind == "memory" else OsStorage(folder)
        self.pauses: list[float] = []
        self._open: list[DiskFile] = []
        self.disk = self._new()

    def _new(self, storage: Any = None) -> Disk:
        return Disk(storage or self.storage, self.pauses.append)

    def open(self, path: str) -> DiskFile:
        file = self.disk.open(path)
        self._open.append(file)
        return file

    def kill(self, seed: int = 1) -> Disk:
        """kill -9, and for memory a power cut too; the disk as the next life finds it."""
        for file in self._open:
            self.storage.close(file._handle)
        self._open.clear()
        if self.kind == "memory":
            self.storage.crash(random.Random(seed))
        self.disk = self._new()
        return self.disk

    def watch(self, die_at: int = 0) -> tuple[Disk, Watched]:
        """A disk of the same files, and the list of what it does to them."""
        watched = Watched(self.storage)
        watched.die_at = die_at
        return self._new(watched), watched

    def read(self, path: str) -> bytes | None:
        """What a new process finds; None if there is no such file."""
        disk = self._new()
        return disk.read(path) if disk.exists(path) else None

    def put(self, path: str, data: bytes) -> None:
        """Durable contents, to begin with."""
        with self._new().open(path) as file:
            file.truncate(0)
            file.write_at(0, data)
            file.sync()

    def close(self) -> None:
        for file in self._open:
            file.close()
        self._open.clear()
