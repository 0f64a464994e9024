"""Which way a large sum goes: through windows, or straight out of the vectors. The faster one.

Which that is hangs on what nobody can ask: on what pages the vectors lie (reach.py), and whether
every rank has a core. Both ways add in the same order, so the bits do not depend on it. Rank 0
times the first calls of a kind, in turn, and from then on takes the better; it says in each call
which it is, since all must go the same way.
"""

from __future__ import annotations

from typing import Final

from ddp.call import Call
from ddp.direct import Way

# Calls that are timed of each way. The best of them counts: the first finds cold pages, and any
# may be disturbed.
TRIALS: Final = 3

# One call in so many takes the other way, should its trials all have been disturbed. At twice the
# time that costs 1 %.
CALLS_BETWEEN_DOUBTS: Final = 100

# Calls that are remembered.
CALLS_KEPT: Final = 256


class Ways:
    """What rank 0 knows."""

    def __init__(self) -> None:
        self._best: dict[Call, dict[Way, float]] = {}
        self._counts: dict[Call, int] = {}

    def __repr__(self) -> str:
        return f"<Ways of {len(self._counts)} calls>"

    def choose(self, call: Call) -> Way:
        """For the next such call."""
        if call not in self._counts and len(self._counts) >= CALLS_KEPT:
            self._best.clear()
            self._counts.clear()
        best = self._best.setdefault(call, {})
        count = self._counts[call] = self._counts.get(call, -1) + 1
        if count < 2 * TRIALS:
            return Way.REACH if count % 2 else Way.SHARDS
        reach = best[Way.REACH] < best[Way.SHARDS]
        if count % CALLS_BETWEEN_DOUBTS == 0:
            reach = not reach
        return Way.REACH if reach else Way.SHARDS

    def took(self, call: Call, way: Way, seconds: float) -> None:
        """A call that went well; of those for which there was no choice nothing is kept."""
        if call in self._best:
            best = self._best[call]
            best[way] = min(seconds, best.get(way, seconds))
