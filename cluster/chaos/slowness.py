"""By how much this machine is slower than one that keeps up: limits of time grow with it.

Measured when a run begins, by how late timers are, and as long as it lasts, by how long this
process waited for a processor while it had work: whoever shares the machine may begin to work in
the middle of a run. A node that needs half a second of a processor to start is not broken when it
gets that within a minute. What was worst in any stretch of STRETCH_S counts.

Of a process in the same state as its cluster's: a fresh cluster inherits the priority of who starts
it. Where the kernel does not tell (not on Linux), only the timers count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

# A timer that is this late shows a machine that keeps up.
LATE_S: Final = 0.05
PROBES: Final = 20

STRETCH_S: Final = 5.0
# In a stretch with less work than this, how long it waited was chance.
WORK_S_MIN: Final = 0.05

SCHEDSTAT: Final = Path("/proc/self/schedstat")

Share = tuple[float, float]
"""Seconds for which it had a processor, and for which it waited for one, so far."""


class Slowness:
    """`slowness()` is the factor so far, 1 or more; as it was at first until `watch` runs."""

    def __init__(self, at_first: float, share: Callable[[], Share] | None = None) -> None:
        self._worst = max(1.0, at_first)
        self._share = share or processor_share

    def __repr__(self) -> str:
        return f"<Slowness {self._worst:.1f}>"

    def __call__(self) -> float:
        """By how much limits should be longer."""
        return self._worst

    async def watch(self) -> None:
        """Look at each stretch, for ever."""
        had, waited = self._share()
        while True:
            await asyncio.sleep(STRETCH_S)
            had_now, waited_now = self._share()
            if had_now - had >= WORK_S_MIN:
                # As long as it had one is what a machine that keeps up may let it wait.
                self._worst = max(self._worst, (waited_now - waited) / (had_now - had))
                had, waited = had_now, waited_now


def processor_share() -> Share:
    """Of this process (proc(5), schedstat); nothing where there is no such file."""
    try:
        had, waited, _ = SCHEDSTAT.read_text().split()
        return int(had) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


async def measure_slowness() -> float:
    """By how much timers are later here than on a machine that keeps up; 1 or more."""
    loop, worst = asyncio.get_running_loop(), 0.0
    for _ in range(PROBES):
        due = loop.time() + 0.01
        await asyncio.sleep(0.01)
        worst = max(worst, loop.time() - due)
    return max(1.0, worst / LATE_S)
