"""A sum out of the vectors themselves, where ranks are: nothing is copied so that others see it.

    Reader().read(pid, address, into)     a copy of another process's memory
    ReachSum(…).add, .take                the steps of Way.REACH (direct.py)

`process_vm_readv` copies from one process to another, and the kernel allows it to who could also
attach a debugger: one's own user's processes, unless a security module says no (Yama's
`ptrace_scope` of 1, seccomp in a container). `Reader.reaches` finds that out.

To find the pages of the other costs the kernel 0.4 µs for each, small or huge. So it is the better
way for vectors on huge pages, which numpy asks for from 4 MB on; ways.py measures which is.

A number of a process could be another's one day. Whoever reads looks afterwards whether the one it
meant lives (CHECK): while it did, its number was its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from ddp.call import Call
from ddp.direct import Mark, Sum, Way
from ddp.elements import Array
from ddp.recorder import Record

# Bytes that are read and added at a time: with the part of one's own vector they stay in a core's
# cache. Half of it costs 10 %, in calls; from twice on nothing changes.
BLOCK_BYTES: Final = 256 * 1024


class Place(NamedTuple):
    """Of a rank's vector."""

    pid: int
    address: int


class Unreachable(Exception):
    """Memory of `rank` that could be read once cannot be now: it has ended, or has let go of it."""

    def __init__(self, rank: int, why: str) -> None:
        super().__init__(f"its vector cannot be read: {why}")
        self.rank = rank


class _Span(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Reader:
    """Reads other processes; one thread at a time."""

    def __init__(self) -> None:
        self._call = ctypes.CDLL(None, use_errno=True).process_vm_readv
        size = ctypes.c_ulong
        self._call.argtypes = (
            ctypes.c_int, ctypes.c_void_p, size, ctypes.c_void_p, size, size,
        )  # fmt: skip
        self._call.restype = ctypes.c_ssize_t
        self._here, self._there = _Span(), _Span()
        self._spans = ctypes.addressof(self._here), ctypes.addressof(self._there)
        self._room = np.empty(2 * BLOCK_BYTES, np.uint8)

    def __repr__(self) -> str:
        return f"<Reader of pid {os.getpid()}>"

    def read(self, pid: int, address: int, into: Array) -> None:
        """Fill `into` from there; raises OSError."""
        here, left = address_of(into), into.nbytes
        local, remote = self._spans
        while left:
            self._here.base, self._there.base = here, address
            self._here.length = self._there.length = left
            count = self._call(pid, local, 1, remote, 1, 0)
            if count <= 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
            here, address, left = here + count, address + count, left - count

    def reaches(self, pid: int, address: int, value: int) -> bool:
        """Whether that process's memory can be read; this 64-bit word is there."""
        found = np.zeros(1, np.uint64)
        try:
            self.read(pid, address, found)
        except OSError:
            return False
        return int(found[0]) == value

    def blocks(self, like: Array) -> tuple[Array, Array]:
        """Two blocks of room, of the type of `like`."""
        values = self._room.view(like.dtype)
        return values[: len(values) // 2], values[len(values) // 2 :]


def address_of(array: Array) -> int:
    """Of its first element, in this process."""
    address: int = array.__array_interface__["data"][0]
    return address


class ReachSum(Sum):
    """The numbers of one rank in one call that reads all ranks' vectors.

    Args:
        places: of all ranks' vectors.
    """

    way = Way.REACH

    def __init__(
        self,
        call: Call,
        vector: Array,
        rank: int,
        places: Sequence[Place],
        reader: Reader,
        record: Record,
    ) -> None:
        super().__init__(call, vector, rank, len(places), record)
        self._places, self._reader = places, reader

    def add(self, window: int) -> None:
        """Our shard of all ranks' vectors, in their order, block by block."""
        for _ in range(self.size - 1):
            self.heard(window, Mark.FILLED)
        lo, hi = self._shard(self.vector, self.rank)
        room, block = self._reader.blocks(self.vector)
        for start in range(lo, hi, len(block)):
            mine = self.vector[start : min(start + len(block), hi)]
            self._fold(self._parts(start, mine, room, block), mine, room[: len(mine)])
        shard = self.vector[lo:hi].nbytes
        self.received += shard * (self.size - 1)
        # Each other rank has its shard of ours, and takes ours once it is summed.
        self.record.sent += self.vector.nbytes - shard + shard * (self.size - 1)

    def take(self, window: int, rank: int) -> None:
        """The sums of another rank, from its vector."""
        lo, hi = self._shard(self.vector, rank)
        self._read(rank, lo, self.vector[lo:hi])
        self.received += self.vector[lo:hi].nbytes

    def _parts(self, start: int, mine: Array, room: Array, block: Array) -> Iterator[Array]:
        """Of each rank what goes into `mine`. The first may stay in `room`: nothing was added up
        there yet."""
        for rank in range(self.size):
            if rank == self.rank:
                yield mine
                continue
            into = (room if rank == 0 else block)[: len(mine)]
            self._read(rank, start, into)
            yield into

    def _read(self, rank: int, start: int, into: Array) -> None:
        place = self._places[rank]
        try:
            self._reader.read(place.pid, place.address + start * into.itemsize, into)
        except OSError as error:
            raise Unreachable(rank, error.strerror or str(error)) from None
