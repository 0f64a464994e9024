"""Virtual time: what is to happen, in its order. An hour takes as long as what happens in it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Timeline:
    """Calls things at their time; those of the same time in the order in which they were set."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<Timeline t={self.now:.3f} due={len(self._due)}>"

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do `action` at `when`, or now if that is past."""
        heapq.heappush(self._due, (max(when, self.now), next(self._numbers), action))

    def run(self, until: float = float("inf")) -> None:
        """Until nothing is left to do, or the time is `until`."""
        while self._due and self._due[0][0] <= until:
            self.now, _, action = heapq.heappop(self._due)
            action()
        if until < float("inf"):
            self.now = until


class Alarm:
    """Wakes a core at its `next_deadline`, as asyncio's timers do for the real ones."""

    def __init__(self, timeline: Timeline, wake: Callable[[], None]) -> None:
        self._timeline = timeline
        self._wake = wake
        self._set_for: float | None = None

    def set(self, deadline: float | None) -> None:
        """Wake at `deadline` and at no other time; None: not at all."""
        if deadline == self._set_for:
            return
        self._set_for = deadline
        if deadline is not None:
            self._timeline.at(deadline, lambda: self._ring(deadline))

    def _ring(self, deadline: float) -> None:
        if deadline == self._set_for:
            self._set_for = None
            self._wake()
