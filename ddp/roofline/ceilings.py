"""The ceilings, measured: matrix products for arithmetic, streams over growing sets for the memory.

Bytes are counted as STREAM counts them: each array read and each array written once, without
the reads that a cache makes before it writes. numpy's elementwise kernels run on one core, so all
of this is one core's roofline: BLAS is asked for one thread (`OPENBLAS_NUM_THREADS=1`).

How they are timed, together with what lies under them: survey.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ddp.roofline.model import Bandwidth, Kernel, Peak, Roofline, Timed

SIZES: Final = (64, 256, 1024)  # n of the matrix products
SMALLEST_BYTES: Final = 16 << 10
LARGEST_BYTES: Final = 128 << 20
CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")


def caches() -> dict[str, int]:
    """Bytes of each level's cache for data, from the kernel; empty where it does not say."""
    found: dict[str, int] = {}
    for index in sorted(CACHES.glob("index*")):
        kind = (index / "type").read_text().strip()
        size = (index / "size").read_text().strip()
        if kind in ("Data", "Unified") and size.endswith("K"):
            found[f"L{(index / 'level').read_text().strip()}"] = int(size[:-1]) << 10
    return found


def level_of(set_bytes: int, levels: dict[str, int]) -> str:
    """The smallest cache that the set fits in, or "memory"."""
    for name, size in sorted(levels.items(), key=lambda item: item[1]):
        if set_bytes <= size:
            return name
    return "memory"


def ceilings() -> Iterator[Kernel]:
    """Everything that a roof is made of."""
    for dtype in ("float32", "float64"):
        for n in SIZES:
            yield matmul(n, dtype)
    set_bytes = SMALLEST_BYTES
    while set_bytes <= LARGEST_BYTES:
        yield from streams(set_bytes)
        set_bytes *= 4


def matmul(n: int, dtype: str) -> Kernel:
    """n × n by n × n: n/12 operations a byte in float64, if each matrix moves once."""
    a, b, c = (np.full((n, n), 0.5, dtype) for _ in range(3))
    moved = 3 * a.nbytes
    short = dtype.replace("float", "f")
    return Kernel(
        f"matmul {n} {short}", dtype, 2 * n**3, moved, moved, lambda: np.matmul(a, b, out=c)
    )


def streams(set_bytes: int) -> Iterator[Kernel]:
    """What does next to nothing with what it moves; daxpy where scipy is installed."""
    n = set_bytes // 2 // 8
    x, y = np.ones(n), np.zeros(n)

    def stream(name: str, flop: int, arrays: int, run: Callable[[], Any]) -> Kernel:
        return Kernel(name, "float64", flop, arrays * 8 * n, 2 * 8 * n, run)

    yield stream("copy", 0, 2, lambda: np.copyto(y, x))
    # Two arrays, three transfers: both are read, one is written.
    yield stream("add", n, 3, lambda: np.add(y, x, out=y))
    try:
        from scipy.linalg.blas import daxpy
    except ImportError:
        return
    yield stream("daxpy", 2 * n, 3, lambda: daxpy(x, y, a=1e-9))


def roofline(timed: Iterable[Timed]) -> Roofline:
    """From the best time of each of `ceilings`."""
    levels = caches()
    peaks, bandwidths = [], []
    for known in timed:
        kernel, seconds = known.kernel, known.seconds
        if kernel.name.startswith("matmul"):
            peaks.append(Peak(kernel.dtype, kernel.flop / seconds / 1e9))
        else:
            level = level_of(kernel.set_bytes, levels)
            gb_s = kernel.moved_bytes / seconds / 1e9
            bandwidths.append(Bandwidth(kernel.name, level, kernel.set_bytes, gb_s))
    return Roofline(peaks, bandwidths)


def blas() -> str:
    """Which library multiplies, for what processor it chose its kernels, with how many threads."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        described = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{described['name']} {described['version']}"
    found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    names = {
        f"{p['internal_api']} {p['version']} {p.get('architecture', '?')} x{p['num_threads']}"
        for p in found
    }
    return ", ".join(sorted(names)) or "unknown"
