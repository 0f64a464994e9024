"""Memory that the ranks of one host share. Nothing is left of it, whatever is killed when.

Each rank makes one segment, in which only it writes, and maps those of the others. A segment is a
memfd: it has no name in /dev/shm that somebody would have to remove; others open it through
/proc/PID/fd, and the kernel frees it with the last process that maps it.

    counters     calls, filled, reduced, taken, state, sees, and where the segment is in its maker's
                 memory; how far each ring was written, and each other's read
    calls        what this rank called, and where its vector is, by number modulo CALLS
    reason       why the group is over, if it is
    staging      `window` bytes for others to add, and `window` bytes of what this rank has added
    rings        a ring of bytes to each other rank

Counters are 64-bit words, each on a cache line of its own, written by one process; a reader that
sees a counter sees all that was written before it. That is the memory model of x86 (TSO), so
elsewhere `usable` says no.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ddp.elements import Array
from ddp.frames import RANKS_MAX

LINE: Final = 8  # words of a cache line
CALLS, FILLED, REDUCED, TAKEN, STATE, SEES, ADDRESS = range(0, 7 * LINE, LINE)
_WRITTEN: Final = 7 * LINE
_READ: Final = _WRITTEN + LINE * RANKS_MAX
_COUNTER_BYTES: Final = 8 * (_READ + LINE * RANKS_MAX)

CALL_SLOTS: Final = 64
CALL_BYTES: Final = 128
REASON_BYTES: Final = 4096

# Of each ring: a few frames of the largest size. Pages that nobody writes to take no memory.
RING_BYTES: Final = 1 << 20


def usable() -> bool:
    """Whether this machine has what a segment needs."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def host_id() -> str:
    """The same for processes that can map each other's segments: one kernel, one pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}/{os.getuid()}"


@dataclass(frozen=True, slots=True)
class Where:
    """How others find a segment."""

    pid: int
    descriptor: int
    host: str


class Segment:
    """One rank's, made here or mapped."""

    def __init__(self, descriptor: int, size: int, window: int) -> None:
        self.descriptor, self.size, self.window = descriptor, size, window
        self._map = mmap.mmap(descriptor, segment_bytes(size, window))
        self.bytes = memoryview(self._map)
        self.counters = self.bytes[:_COUNTER_BYTES].cast("Q")
        self._calls = self.bytes[_COUNTER_BYTES : _COUNTER_BYTES + CALL_SLOTS * CALL_BYTES]
        at = _COUNTER_BYTES + CALL_SLOTS * CALL_BYTES
        self._reason = self.bytes[at : at + REASON_BYTES]
        at = _staging_at()
        self.filled = self.bytes[at : at + window]
        self.reduced = self.bytes[at + window : at + 2 * window]
        self._rings_at = at + 2 * window

    def __repr__(self) -> str:
        return f"<Segment fd={self.descriptor} ranks={self.size} window={self.window}>"

    @classmethod
    def make(cls, size: int, window: int) -> Segment:
        """A new one for a group of `size`; raises OSError."""
        descriptor = os.memfd_create("ring-ddp", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, segment_bytes(size, window))
            segment = cls(descriptor, size, window)
            segment.counters[ADDRESS] = segment.address
            return segment
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def of(cls, where: Where, size: int, window: int) -> Segment:
        """Another rank's; raises OSError if it is gone, or was made for another group."""
        path = f"/proc/{where.pid}/fd/{where.descriptor}"
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != segment_bytes(size, window):
                raise OSError(f"{path} is no segment of a group of {size}")
            return cls(descriptor, size, window)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def where(self) -> Where:
        """For the others."""
        return Where(os.getpid(), self.descriptor, host_id())

    @property
    def address(self) -> int:
        """Of the word ADDRESS in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self.counters[ADDRESS:]))

    def write_call(self, number: int, data: bytes) -> None:
        """Say what is called under `number`; counts once CALLS is beyond it."""
        at = number % CALL_SLOTS * CALL_BYTES
        self._calls[at : at + len(data)] = data
        self.counters[CALLS] = number + 1

    def read_call(self, number: int, length: int, offset: int = 0) -> bytes:
        """What was said."""
        at = number % CALL_SLOTS * CALL_BYTES + offset
        return bytes(self._calls[at : at + length])

    @property
    def reason(self) -> bytes:
        """Why the group is over for this rank; b"" if it is not."""
        length = self.counters[STATE]
        return bytes(self._reason[:length])

    @reason.setter
    def reason(self, data: bytes) -> None:
        data = data[:REASON_BYTES]
        if not self.counters[STATE]:
            self._reason[: len(data)] = data
            self.counters[STATE] = len(data)

    def ring_to(self, rank: int) -> memoryview:
        """The bytes of the ring to `rank`."""
        at = self._rings_at + rank * RING_BYTES
        return self.bytes[at : at + RING_BYTES]

    def close(self) -> None:
        """Unmap. Others that have it mapped keep it until they do the same."""
        views = (self.counters, self._calls, self._reason, self.filled, self.reduced, self.bytes)
        with contextlib.suppress(
            BufferError
        ):  # an array of it is in somebody's hands: it goes last
            for view in views:
                view.release()
            self._map.close()
        os.close(self.descriptor)


class RingEnd:
    """One end of a ring: `written` is counted in its writer's segment, `read` in its reader's."""

    def __init__(
        self, writer: Segment, writer_rank: int, reader: Segment, reader_rank: int
    ) -> None:
        self._bytes = writer.ring_to(reader_rank)
        self._written, self._written_at = writer.counters, _WRITTEN + LINE * reader_rank
        self._read, self._read_at = reader.counters, _READ + LINE * writer_rank

    def push(self, data: memoryview) -> int:
        """Write what there is room for; returns how much."""
        written = self._written[self._written_at]
        room = RING_BYTES - (written - self._read[self._read_at])
        count = min(room, len(data))
        at, done = written % RING_BYTES, 0
        while done < count:
            part = min(count - done, RING_BYTES - at)
            self._bytes[at : at + part] = data[done : done + part]
            done, at = done + part, 0
        if count:
            self._written[self._written_at] = written + count
        return count

    def close(self) -> None:
        """Let go of the segments."""
        self._bytes.release()

    def pull(self) -> bytes:
        """All that is there; b"" if nothing is."""
        read = self._read[self._read_at]
        count = self._written[self._written_at] - read
        if not count:
            return b""
        at = read % RING_BYTES
        data = bytes(self._bytes[at : at + count])
        if len(data) < count:
            data += bytes(self._bytes[: count - len(data)])
        self._read[self._read_at] = read + count
        return data


def segment_bytes(size: int, window: int) -> int:
    """Of a whole segment."""
    return _staging_at() + 2 * window + size * RING_BYTES


def _staging_at() -> int:
    """Behind the counters, on a page of its own."""
    end = _COUNTER_BYTES + CALL_SLOTS * CALL_BYTES + REASON_BYTES
    return -(-end // mmap.PAGESIZE) * mmap.PAGESIZE


def values(part: memoryview, like: Array) -> Array:
    """Staged bytes as elements of the type of `like`."""
    import numpy as np

    return np.frombuffer(part, like.dtype)
