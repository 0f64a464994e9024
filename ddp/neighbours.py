"""Ranks of one host in a group that spans several: their frames go through memory.

    near = Neighbours(rank, size)
    near.meet({2: place, 3: place})          `near.place` of each, told over netstack
    near.send(2, frame) … near.ready(2)      a frame at a time; False: there is no room yet
    loop.add_reader(near.bell, …)            somebody has rung
    for rank, frame in near.hear(): …

The same frames, of the same schedules, as between hosts; only the way is another. Each pair has a
ring of bytes each way (segment.py), and each rank a bell: a pipe that the others open through
/proc/PID/fd, so that its loop sleeps in the kernel until there is something. Who rings writes a
byte: its rank, and WANTS_ROOM if it waits to be rung back once its ring was emptied.

A bell that is full will be heard anyhow. That somebody waits for room may be lost with it; so who
waits also looks now and then (NetworkFabric's tick).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from ddp.errors import RankLost
from ddp.frames import RANKS_MAX, Decoder, Frame
from ddp.segment import RingEnd, Segment, Where, host_id

# Of a rank: its process, and the descriptors of its segment and of its bell.
_PLACE: Final = struct.Struct("!qii")

WANTS_ROOM: Final = 0x80
assert RANKS_MAX <= WANTS_ROOM

# Rings that are heard at once.
BELL_BYTES: Final = 4096


class Neighbours:
    """One rank's end. Raises OSError if there is no memory for it."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._own = Segment.make(size, 0)
        self.bell, self._rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._segments: dict[int, Segment] = {}
        self._ropes: dict[int, int] = {}  # of the others' bells
        self._in: dict[int, RingEnd] = {}
        self._out: dict[int, RingEnd] = {}
        self._decoders: dict[int, Decoder] = {}
        self._rest: dict[int, memoryview] = {}  # what there was no room for

    def __repr__(self) -> str:
        return f"<Neighbours of rank {self.rank}: {sorted(self._segments)}>"

    def __contains__(self, rank: int) -> bool:
        return rank in self._segments

    @property
    def place(self) -> bytes:
        """By which the others find us."""
        return _PLACE.pack(os.getpid(), self._own.descriptor, self._rope)

    def meet(self, places: Mapping[int, bytes]) -> None:
        """Map what they have. Raises RankLost for one who is gone."""
        for rank, place in places.items():
            pid, descriptor, rope = _PLACE.unpack(place)
            try:
                segment = Segment.of(Where(pid, descriptor, host_id()), self.size, 0)
                self._segments[rank] = segment
                way = f"/proc/{pid}/fd/{rope}"
                self._ropes[rank] = os.open(way, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise RankLost(f"rank {rank}'s memory is gone: {error}") from None
            self._in[rank] = RingEnd(segment, rank, self._own, self.rank)
            self._out[rank] = RingEnd(self._own, self.rank, segment, rank)
            self._decoders[rank] = Decoder()

    # -- out

    def send(self, dst: int, frame: Frame) -> None:
        """Begin with a frame; `ready` must have said so."""
        self._rest[dst] = memoryview(frame.encode())
        self.ready(dst)

    def ready(self, dst: int) -> bool:
        """Go on; whether all that was sent to `dst` is on its way, so that more may be."""
        rest = self._rest.get(dst)
        if rest is None:
            return True
        pushed = self._out[dst].push(rest)
        if pushed < len(rest):
            self._rest[dst] = rest[pushed:]
            self._ring(dst, WANTS_ROOM)
            return False
        del self._rest[dst]
        self._ring(dst)
        return True

    def go_on(self) -> None:
        """With all for which there was no room."""
        for dst in list(self._rest):
            self.ready(dst)

    def _ring(self, dst: int, wish: int = 0) -> None:
        with contextlib.suppress(OSError):  # full, or nobody lives there: his death is told
            os.write(self._ropes[dst], bytes((self.rank | wish,)))

    # -- in

    def hear(self) -> Iterator[tuple[int, Frame]]:
        """(rank, frame) of all that has come from those who have rung; raises Corrupted."""
        with contextlib.suppress(BlockingIOError):
            for ring in set(os.read(self.bell, BELL_BYTES)):
                rank = ring & ~WANTS_ROOM
                if rank not in self:
                    continue
                for frame in self.pull(rank):
                    yield rank, frame
                if ring & WANTS_ROOM:
                    self._ring(rank)

    def pull(self, rank: int) -> Iterator[Frame]:
        """What has come from one, who may be dead by now; raises Corrupted."""
        data = self._in[rank].pull()
        if data:
            yield from self._decoders[rank].feed(data)

    def close(self) -> None:
        """Let go of everything. What we have written stays readable for those who mapped it."""
        for ring in (*self._in.values(), *self._out.values()):
            ring.close()
        for segment in (self._own, *self._segments.values()):
            segment.close()
        for descriptor in (self.bell, self._rope, *self._ropes.values()):
            os.close(descriptor)
        self._segments.clear()
