"""The values of one worker: in memory up to a limit, the rest on its disk.

The value that was used longest ago goes to the disk first. A file has a checksum, and is nothing
but a cache: it is not synced, and a restart empties the folder. A value that cannot be read back is
gone, as if its worker were, and is computed again by whoever needs it. If the disk is full, the
values stay in memory and the worker says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict

import google_crc32c

from mapreduce.store.disk_work import DiskWork
from netstack.runtime.disk import Disk

FOLDER = "spill"
SUM_BYTES = 4

Key = tuple[str, str]
"""(session, task)"""


class Values:
    """Bytes by session and task.

    Args:
        disk: of the worker.
        work: its thread.
        memory_bytes: what may stay in memory.
    """

    def __init__(self, disk: Disk, work: DiskWork, memory_bytes: int) -> None:
        self._disk = disk
        self._work = work
        self._limit = memory_bytes
        self._memory: OrderedDict[Key, bytes] = OrderedDict()
        self._spilled: dict[Key, tuple[str, int]] = {}  # file, bytes
        self._spilling = asyncio.Lock()
        self._files = 0
        self.memory_bytes = 0
        self.spilled_ever = 0
        self.trouble = ""

    def __repr__(self) -> str:
        return (
            f"<Values memory={len(self._memory)} ({self.memory_bytes} bytes) "
            f"spilled={len(self._spilled)}>"
        )

    def __len__(self) -> int:
        return len(self._memory) + len(self._spilled)

    def __contains__(self, key: Key) -> bool:
        return key in self._memory or key in self._spilled

    @property
    def spilled(self) -> int:
        """How many lie on the disk."""
        return len(self._spilled)

    async def clear_disk(self) -> None:
        """Remove what an earlier life left there."""

        def clear() -> None:
            for name in self._disk.list(FOLDER):
                self._disk.remove(f"{FOLDER}/{name}")

        await self._work.do(clear)

    def put(self, key: Key, data: bytes) -> bool:
        """Keep a value; True if something should be spilled now: call `spill`."""
        self.drop(key)
        self._memory[key] = data
        self.memory_bytes += len(data)
        return self.memory_bytes > self._limit

    def in_memory(self, key: Key) -> bytes | None:
        """The value, if it need not be read from the disk."""
        data = self._memory.get(key)
        if data is not None:
            self._memory.move_to_end(key)
        return data

    async def get(self, key: Key) -> bytes | None:
        """The value, or None if it is not here (any more)."""
        data = self.in_memory(key)
        if data is not None:
            return data
        found = self._spilled.get(key)
        if found is None:
            return None
        try:
            return await self._work.do(self._load, *found)
        except (OSError, ValueError) as error:
            if self._spilled.get(key) == found:
                del self._spilled[key]
                self.trouble = f"a spilled value could not be read: {error}"
            return None

    def drop(self, key: Key) -> None:
        """Forget a value."""
        data = self._memory.pop(key, None)
        if data is not None:
            self.memory_bytes -= len(data)
        found = self._spilled.pop(key, None)
        if found is not None:
            self._forget_file(found[0])

    def drop_session(self, session: str) -> None:
        """Forget all of one session."""
        for key in [key for key in (*self._memory, *self._spilled) if key[0] == session]:
            self.drop(key)

    async def spill(self) -> None:
        """Bring memory below its limit."""
        async with self._spilling:
            while self.memory_bytes > self._limit and len(self._memory) > 1:
                key, data = next(iter(self._memory.items()))
                self._files += 1
                name = f"{FOLDER}/{self._files}"
                try:
                    await self._work.do(self._save, name, data)
                except OSError as error:
                    self.trouble = f"values do not fit in memory, nor on the disk: {error}"
                    self._forget_file(name)
                    return
                if self._memory.get(key) is data:
                    del self._memory[key]
                    self.memory_bytes -= len(data)
                    self._spilled[key] = (name, len(data))
                    self.spilled_ever += 1
                    self.trouble = ""
                else:
                    self._forget_file(name)  # it was dropped, or replaced, meanwhile

    def _save(self, name: str, data: bytes) -> None:
        with self._disk.open(name) as file:
            file.truncate(0)
            file.write_at(0, _crc(data) + data)

    def _load(self, name: str, size: int) -> bytes:
        with self._disk.open(name) as file:
            stored = file.read_at(0, size + SUM_BYTES)
        data = stored[SUM_BYTES:]
        if len(data) != size or stored[:SUM_BYTES] != _crc(data):
            raise ValueError(f"{name} does not match its checksum")
        return data

    def _forget_file(self, name: str) -> None:
        def forget() -> None:
            with contextlib.suppress(OSError):
                self._disk.remove(name)

        self._work.later(forget)


def _crc(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(SUM_BYTES, "big")
