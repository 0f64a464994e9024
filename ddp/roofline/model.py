"""The roofline: attainable speed = min(peak, intensity × bandwidth) (Williams et al. 2009).

    GFLOP/s
      │        ____________ peak of matrix products
      │       /·
      │      / ·            left of the ridge a kernel waits for memory, right of it for arithmetic
      │     /  ·
      │    /   ridge = peak / bandwidth
      └──────────────────── flop per byte

There is one slope a level of the memory: what fits in a cache is served by it. A kernel's
intensity comes from counts, never from a clock; only its speed is measured. No point may lie
above its roof; if one does, the roof was measured badly, and everything drawn under it is void.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

# What two measurements of the same thing may differ by, on a machine that others use too.
TOLERANCE: Final = 1.1


@dataclass(frozen=True, slots=True)
class Kernel:
    """Something to time; counts are of one call of `run`."""

    name: str
    dtype: str
    flop: int
    moved_bytes: int
    set_bytes: int
    run: Callable[[], Any]

    def point(self, seconds: float) -> Point:
        """Where it lies, if a call takes so long."""
        counts = (self.name, self.dtype, self.flop, self.moved_bytes, self.set_bytes)
        return Point(*counts, seconds)


@dataclass(frozen=True, slots=True)
class Timed:
    """A kernel, and the best time of a call."""

    kernel: Kernel
    seconds: float


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes a second that a stream over a working set gets."""

    kernel: str
    level: str  # the smallest that the set fits in
    set_bytes: int
    gb_s: float


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations a second that matrix products get."""

    dtype: str
    gflop_s: float


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel: counts, and how fast it went."""

    name: str
    dtype: str
    flop: int
    moved_bytes: int
    set_bytes: int
    seconds: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flop / self.moved_bytes

    @property
    def gflop_s(self) -> float:
        """As measured."""
        return self.flop / self.seconds / 1e9


@dataclass(frozen=True, slots=True)
class Roofline:
    """The ceilings of one core."""

    peaks: Sequence[Peak]
    bandwidths: Sequence[Bandwidth]

    def peak(self, dtype: str) -> float:
        """GFLOP/s of a type."""
        return max(peak.gflop_s for peak in self.peaks if peak.dtype == dtype)

    def bandwidth(self, set_bytes: int) -> float:
        """GB/s for a working set: the best that any stream over as much, or more, has got.

        More never gets more from the hardware; but a small stream is mostly the call that starts
        it, and then a larger one tells better what the memory gives.
        """
        largest = max(b.set_bytes for b in self.bandwidths)
        enough = [b.gb_s for b in self.bandwidths if b.set_bytes >= min(set_bytes, largest) / 2]
        return max(enough)

    def attainable(self, intensity: float, dtype: str, set_bytes: int) -> float:
        """GFLOP/s."""
        return min(self.peak(dtype), intensity * self.bandwidth(set_bytes))

    def roof(self, point: Point) -> float:
        """What the kernel could reach, in GFLOP/s."""
        return self.attainable(point.intensity, point.dtype, point.set_bytes)

    def bound(self, point: Point) -> str:
        """What it is held up by: "memory" or "arithmetic"."""
        slope = point.intensity * self.bandwidth(point.set_bytes)
        return "memory" if slope < self.peak(point.dtype) else "arithmetic"

    def above(self, points: Sequence[Point]) -> list[Point]:
        """Those that break the invariant: faster than TOLERANCE × their roof."""
        return [point for point in points if point.gflop_s > TOLERANCE * self.roof(point)]
