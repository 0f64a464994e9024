"""Bytes a second as a peer sees them: smoothed over some seconds; and a bucket that limits them."""

from __future__ import annotations

from typing import Final

SMOOTHED_S: Final = 5.0


class Rate:
    """A rate that forgets what is more than some SMOOTHED_S ago."""

    def __init__(self, now: float) -> None:
        self.total = 0
        self._rate = 0.0
        self._counted = 0
        self._at = self._began = now

    def add(self, count: int) -> None:
        """So many bytes passed."""
        self.total += count

    def now(self, now: float) -> float:
        """Bytes a second."""
        elapsed = now - self._at
        if elapsed >= 0.25:
            # At first over the time there has been, later over SMOOTHED_S.
            weight = min(1.0, elapsed / min(SMOOTHED_S, max(now - self._began, elapsed)))
            latest = (self.total - self._counted) / elapsed
            self._rate += weight * (latest - self._rate)
            self._counted, self._at = self.total, now
        return self._rate


class Bucket:
    """At most `rate` bytes a second, and `burst` at once; rate 0: no limit."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, count: int, now: float) -> bool:
        """Whether so many bytes may pass now; then they have."""
        if not self.rate:
            return True
        self._level = min(self._burst, self._level + (now - self._at) * self.rate)
        self._at = now
        # A little below zero by rounding must not stop what `ready_at` has promised.
        if self._level + 1e-6 < min(count, self._burst):
            return False
        self._level -= count
        return True

    def ready_at(self, count: int) -> float:
        """When so many may pass, as things are."""
        if not self.rate:
            return self._at
        return self._at + max(0.0, min(count, self._burst) - self._level) / self.rate
