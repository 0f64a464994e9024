"""The sliding window that tells a new packet from a copy (the idea of RFC 6479, on one integer).

    highest         the largest number accepted so far
    bit i of mask   whether `highest - i` was accepted, 0 <= i < WINDOW

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

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = -1
        self._seen = 0

    def __repr__(self) -> str:
        return f"<ReplayWindow highest={self.highest} held={self._seen.bit_count()}/{WINDOW}>"

    def is_new(self, number: int) -> bool:
        """Whether `number` may be accepted. Asking changes nothing."""
        age = self.highest - number
        if age < 0:
            return True
        return age < WINDOW and not self._seen >> age & 1

    def accept(self, number: int) -> None:
        """Mark `number`, which was new and whose tag has verified."""
        age = self.highest - number
        if age < 0:
            self._seen = ((self._seen << -age) | 1) & _MASK if age > -WINDOW else 1
            self.highest = number
        else:
            self._seen |= 1 << age
