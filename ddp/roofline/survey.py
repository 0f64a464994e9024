"""Ceilings and kernels timed in turn, round after round; the best of each counts.

The machine is shared: what others take of it is not its limit, and a ceiling that was taken in a
bad minute lies below kernels that were timed in a good one. So all are timed in every round. A
round can only raise what is known of the machine. Arrays are made anew for each: where they come
to lie in memory makes a tenth of difference too. There are ROUNDS_MIN rounds, and more, up to
ROUNDS_MAX, as long as a point still lies above its roof. What lies above it after that is
reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from ddp.roofline.ceilings import ceilings, roofline
from ddp.roofline.kernels import kernels
from ddp.roofline.model import Kernel, Point, Roofline, Timed

ROUNDS_MIN: Final = 5
ROUNDS_MAX: Final = 15
# A try lasts at least so long: thousands of ticks of the clock.
TRY_S: Final = 0.004


def try_s(run: Callable[[], Any], repeats: int) -> tuple[float, int]:
    """Seconds of one call, repeated until a try lasts; and how often that was."""
    while True:
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        took = time.perf_counter() - began
        if took >= TRY_S:
            return took / repeats, repeats
        repeats = max(repeats + 1, int(repeats * 1.2 * TRY_S / max(took, 1e-9)))


def survey() -> tuple[Roofline, list[Point], int]:
    """The roof, what lies under it, and how many rounds it took; some seconds."""
    best: dict[str, float] = {}
    repeats: dict[str, int] = {}

    def timed(made: Iterable[Kernel]) -> list[Timed]:
        done = []
        for kernel in made:
            key = f"{kernel.name}/{kernel.set_bytes}"
            kernel.run()  # its memory is there, its code is loaded
            seconds, repeats[key] = try_s(kernel.run, repeats.get(key, 1))
            seconds = best[key] = min(seconds, best.get(key, seconds))
            done.append(Timed(replace(kernel, run=lambda: None), seconds))
        return done

    for rounds in range(1, ROUNDS_MAX + 1):
        roof = roofline(timed(ceilings()))
        points = [known.kernel.point(known.seconds) for known in timed(kernels())]
        if rounds >= ROUNDS_MIN and not roof.above(points):
            break
    return roof, points, rounds
