"""The time, as one node sees it: steady for intervals, wall for dates, and both can be made wrong.

A node's steady clock runs at `rate` times the true one; its wall clock is off by `offset_s`.
Protocols get `now` from here and nowhere else, so a drifting or jumping clock is a fault like any
other.
"""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """`now()` in seconds for intervals; `wall()` in Unix seconds for people and certificates."""

    __slots__ = ("_base", "_began", "_steady", "_wall", "offset_s", "rate")

    def __init__(self, steady: Callable[[], float], wall: Callable[[], float]) -> None:
        self._steady = steady
        self._wall = wall
        self._began = steady()
        self._base = self._began
        self.rate = 1.0
        self.offset_s = 0.0

    def __repr__(self) -> str:
        return f"<Clock rate={self.rate} offset={self.offset_s:+.3f}s>"

    def now(self) -> float:
        """Seconds on this node's steady clock. Never goes back."""
        if self.rate == 1.0:
            return self._base + (self._steady() - self._began)
        return self._base + (self._steady() - self._began) * self.rate

    def true_now(self) -> float:
        """Seconds on the true steady clock, for what does not run by this node's."""
        return self._steady()

    def wall(self) -> float:
        """Unix seconds on this node's wall clock. May jump."""
        return self._wall() + self.offset_s

    def set_rate(self, rate: float) -> None:
        """Let the steady clock run `rate` times as fast from now on; raises ValueError.

        Timers that are set already keep the true time for which they were set.
        """
        check_rate(rate)
        self._base, self._began = self.now(), self._steady()
        self.rate = rate

    def true_delay(self, deadline: float) -> float:
        """How many true seconds until this clock shows `deadline`; 0 if it is past."""
        return max(0.0, (deadline - self.now()) / self.rate)


def check_rate(rate: float) -> None:
    """Raises ValueError for a rate that no clock is off by."""
    if not 0.1 <= rate <= 10:
        raise ValueError(f"a clock's rate must be between 0.1 and 10, not {rate}")
