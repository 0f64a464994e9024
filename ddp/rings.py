"""Frames between the ranks of one host: a ring of bytes (segment.py) each way for each pair."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from ddp.frames import Decoder, Frame
from ddp.segment import RingEnd, Segment


class Rings:
    """One rank's ends. Nothing here waits: what there is no room for stays until the next `push`.

    Args:
        segments: of all ranks, in their order.
    """

    def __init__(self, rank: int, segments: Sequence[Segment]) -> None:
        own = segments[rank]
        peers = [(r, segment) for r, segment in enumerate(segments) if r != rank]
        self._in = {r: RingEnd(segment, r, own, rank) for r, segment in peers}
        self._out = {r: RingEnd(own, rank, segment, r) for r, segment in peers}
        self._decoders = {r: Decoder() for r, _ in peers}
        self._leaving: dict[int, deque[tuple[memoryview, int]]] = {r: deque() for r, _ in peers}

    def __repr__(self) -> str:
        return f"<Rings to {sorted(self._out)} leaving={sum(map(len, self._leaving.values()))}>"

    def pull(self) -> Iterator[tuple[int, Frame]]:
        """(rank, frame) of all that has come; raises Corrupted."""
        for rank, ring in self._in.items():
            data = ring.pull()
            if data:
                for frame in self._decoders[rank].feed(data):
                    yield rank, frame

    def put(self, dst: int, frame: Frame) -> None:
        """To be sent; as bytes of its own, so that no vector is pointed into."""
        self._leaving[dst].append((memoryview(frame.encode()), len(frame.payload)))

    def push(self) -> tuple[bool, list[int]]:
        """Send what there is room for: whether any byte went, and the payloads of whole frames."""
        moved, gone = False, []
        for dst, leaving in self._leaving.items():
            while leaving:
                rest, payload = leaving.popleft()
                pushed = self._out[dst].push(rest)
                moved = moved or pushed > 0
                if pushed < len(rest):
                    leaving.appendleft((rest[pushed:], payload))
                    break
                gone.append(payload)
        return moved, gone

    def close(self) -> None:
        """Let go of the segments."""
        for ring in (*self._in.values(), *self._out.values()):
            ring.close()
