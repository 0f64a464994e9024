"""The ceilings, measured: matrix products for arithmetic, streams over growing sets for the memory.

Bytes are counted as STREAM counts them: each array read and each array written once, without
the reads that a cache makes before it writes. numpy's elementwise kernels run on one core, so all
of this is one core's roofline: BLAS is asked for one thread (`OPENBLAS_NUM_THREADS=1`).

The best of several tries counts: the machine is shared, and what others take is not its limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ddp.roofline.model import Bandwidth, Peak, Roofline

TRIES: Final = 5
# A try lasts at least so long: a thousand ticks of the clock and of the scheduler's noise.
TRY_S: Final = 0.01
SIZES: Final = (256, 512, 1024)  # n of the matrix products
LARGEST_BYTES: Final = 128 << 20
CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")


def best_s(run: Callable[[], Any]) -> float:
    """Seconds of one call: the fastest of TRIES tries, each repeated until it lasts."""
    run()
    repeats, best = 1, float("inf")
    for _ in range(TRIES):
        while True:
            began = time.perf_counter()
            for _ in range(repeats):
                run()
            took = time.perf_counter() - began
            if took >= TRY_S:
                break
            repeats = max(repeats + 1, int(repeats * 1.2 * TRY_S / max(took, 1e-9)))
        best = min(best, took / repeats)
    return best


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


def measure() -> Roofline:
    """All ceilings; takes some seconds."""
    return Roofline(list(peaks()), list(bandwidths()))


def peaks() -> Iterator[Peak]:
    """Matrix products in both types."""
    for dtype in ("float32", "float64"):
        for n in SIZES:
            a, b, c = (np.full((n, n), 0.5, dtype) for _ in range(3))
            seconds = best_s(lambda a=a, b=b, c=c: np.matmul(a, b, out=c))  # type: ignore[misc]
            yield Peak(dtype, n, 2 * n**3 / seconds / 1e9)


def bandwidths() -> Iterator[Bandwidth]:
    """Streams over half of each cache, and over the largest set."""
    levels = caches() or {"L1": 32 << 10, "L2": 1 << 20}
    sets = sorted({min(size // 2, LARGEST_BYTES) for size in levels.values()} | {LARGEST_BYTES})
    for set_bytes in sets:
        for kernel, arrays, run in streams(set_bytes):
            seconds = best_s(run)
            moved = arrays * (set_bytes // arrays)
            yield Bandwidth(kernel, level_of(set_bytes, levels), set_bytes, moved / seconds / 1e9)


def streams(set_bytes: int) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """(name, arrays that it moves, one call); daxpy where scipy is installed."""
    n = set_bytes // 2 // 8
    x, y = np.ones(n), np.ones(n)
    yield "copy", 2, lambda: np.copyto(y, x)
    n = set_bytes // 3 // 8
    a, b, c = np.ones(n), np.ones(n), np.ones(n)
    yield "add", 3, lambda: np.add(a, b, out=c)
    try:
        from scipy.linalg.blas import daxpy
    except ImportError:
        return
    # Two arrays, three transfers: x and y are read, y is written.
    n = set_bytes // 2 // 8
    u, v = np.ones(n), np.zeros(n)

    def thrice() -> None:
        daxpy(u, v, a=1e-9)

    yield "daxpy", 3, thrice


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
