"""A set of integers kept as disjoint ranges: which packets have arrived.

Nearly all arrive in order, so the top range grows and nothing else happens; that path is two
comparisons.
"""

from __future__ import annotations

from bisect import bisect_right

# A receiver remembers this many gaps; what lies below the oldest is as good as acknowledged or
# lost.
RANGES_MAX = 64


class RangeSet:
    """Disjoint, sorted, inclusive ranges [first, last], lowest first."""

    __slots__ = ("_firsts", "_lasts", "highest")

    def __init__(self) -> None:
        self.highest = -1  # the largest member ever
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __repr__(self) -> str:
        pairs = zip(self._firsts, self._lasts, strict=True)
        return "<RangeSet " + " ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in pairs) + ">"

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __contains__(self, value: int) -> bool:
        i = bisect_right(self._firsts, value) - 1
        return i >= 0 and value <= self._lasts[i]

    def add(self, value: int) -> bool:
        """Add one integer; returns whether it extended the top range, as in-order arrival does."""
        firsts, lasts = self._firsts, self._lasts
        if value > self.highest:
            self.highest = value
        if lasts and lasts[-1] == value - 1:
            lasts[-1] = value
            return True
        i = bisect_right(firsts, value)
        if i and value <= lasts[i - 1]:
            return False
        joins_lower = i > 0 and lasts[i - 1] == value - 1
        joins_upper = i < len(firsts) and firsts[i] == value + 1
        if joins_lower and joins_upper:
            lasts[i - 1] = lasts.pop(i)
            del firsts[i]
        elif joins_lower:
            lasts[i - 1] = value
        elif joins_upper:
            firsts[i] = value
        else:
            firsts.insert(i, value)
            lasts.insert(i, value)
            if len(firsts) > RANGES_MAX:
                del firsts[0], lasts[0]
        return not lasts[:-1] and value == lasts[-1]

    def drop_below(self, value: int) -> None:
        """Forget members below `value`."""
        if len(self._firsts) < 2:
            return  # one range costs nothing to name
        while self._lasts and self._lasts[0] < value:
            del self._firsts[0], self._lasts[0]
        if self._firsts and self._firsts[0] < value:
            self._firsts[0] = value

    @property
    def only(self) -> tuple[int, int] | None:
        """The one range there is; None if there are none or several."""
        return (self._firsts[0], self._lasts[0]) if len(self._firsts) == 1 else None

    def descending(self, most: int = RANGES_MAX) -> list[tuple[int, int]]:
        """(first, last) of each of the `most` highest ranges, highest first."""
        firsts, lasts = self._firsts, self._lasts
        return [(firsts[i], lasts[i]) for i in range(-1, -1 - min(most, len(firsts)), -1)]
