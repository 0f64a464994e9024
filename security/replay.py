"""The sliding window that tells a new packet from a copy (the idea of RFC 6479, on one integer).

    highest         the largest number accepted so far
    run             how many up to `highest` were accepted without a gap
    bit i of mask   whether `highest - run - i` was accepted, 0 <= i < WINDOW

Nearly all arrive in order: then the run is one longer, and no integer of 2,048 bits is touched.

A number above the window's top moves it; one below its bottom is refused unseen, because it may
be a copy. Numbers are marked only after their tag has verified: else a forger could block what is
yet to come.
"""

from __future__ import annotations

from typing import Final

# Packets of one flow arrive at most a few bursts out of order; a burst is up to 64 packets.
WINDOW: Final = 2048
_MASK: Final = (1 << WINDOW) - 1


class ReplayWindow:
    """Which of the last WINDOW packet numbers were accepted."""

    __slots__ = ("_run", "_seen", "highest")

    def __init__(self) -> None:
        self.highest = -1
        self._run = 0
        self._seen = 0

    def __repr__(self) -> str:
        held = min(self._run + self._seen.bit_count(), WINDOW)
        return f"<ReplayWindow highest={self.highest} held={held}/{WINDOW}>"

    def is_new(self, number: int) -> bool:
        """Whether `number` may be accepted. Asking changes nothing."""
        age = self.highest - number
        if age < 0:
            return True
        if age < self._run or age >= WINDOW:
            return False
        return not self._seen >> (age - self._run) & 1

    def accept(self, number: int) -> None:
        """Mark `number`, which was new and whose tag has verified."""
        if number == self.highest + 1:
            self.highest = number
            self._run += 1
            return
        self._end_run()
        age = self.highest - number
        if age < 0:
            self._seen = (self._seen << -age) & _MASK if age > -WINDOW else 0
            self.highest = number
            age = 0
        self._seen |= 1 << age

    def _end_run(self) -> None:
        """Into the mask with it."""
        run = min(self._run, WINDOW)
        self._seen = ((self._seen << run) | ((1 << run) - 1)) & _MASK
        self._run = 0
