"""Path-MTU discovery by packets, without trusting ICMP (RFC 8899, DPLPMTUD).

    base ──(a full packet was sent)──> searching ──(no larger size works)──> complete
      ^                                    │  ^                                 │
      └──────(black hole: time-outs)───────┘  └──────(RAISE_S later)────────────┘

A search tries sizes upwards along a ladder of what links really have, then halves the gap between
the largest that arrived and the smallest that did not. A size has failed when PROBES_MAX probes
of it were lost. It starts when there is something to gain: once a packet was filled to the
current size.

What a path carries it need not carry in time: `next_probe` and `fit` are told how many bytes may be
sent in one packet (path_rate.py), and let larger ones be until that grows.
"""

from __future__ import annotations

from typing import Final

from netstack.transport.config import BASE_MTU

# UDP payloads of: Ethernet, PPPoE just below it, jumbo frames, and loopback.
LADDER: Final = (1452, 1472, 4096, 8972, 16_384, 32_768, 65_507)

PROBES_MAX: Final = 3
# A finer step is not worth a probe: off the ladder, what is found is less than two of them short.
STEP_MIN: Final = 32
RAISE_S: Final = 600.0  # RFC 8899 §5.1.1
# The path is taken for a black hole of large packets after so many time-outs in a row, or if so
# many times in a row some of them were lost and none arrived, while small ones do.
BLACK_HOLE_TIMEOUTS: Final = 3
BLACK_HOLE_LOSSES: Final = 3


class MtuDiscovery:
    """The size of the largest datagram that the path is known to carry."""

    __slots__ = (
        "_failed",
        "_lost_at",
        "_lost_in_a_row",
        "_probes_lost",
        "_raise_at",
        "current",
        "maximum",
        "probing",
        "searching",
    )

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.current = BASE_MTU
        self.probing = 0  # size of the probe under way, or 0
        self._failed = maximum + 1
        self._probes_lost = 0
        self._lost_in_a_row = 0
        self._lost_at = -1.0
        self.searching = False
        self._raise_at: float | None = None

    def __repr__(self) -> str:
        state = "searching" if self.searching else "complete" if self._raise_at else "base"
        return f"<MtuDiscovery {self.current} {state} probing={self.probing}>"

    def restart(self) -> None:
        """Another path, of which nothing is known."""
        self.current = BASE_MTU
        self.probing = self._probes_lost = self._lost_in_a_row = 0
        self.searching = False
        self._raise_at = None

    def packet_was_full(self, now: float) -> None:
        """Larger packets would have been used: search, unless that was done lately."""
        if self.searching or (self._raise_at is not None and now < self._raise_at):
            return
        self.searching = self.current < self.maximum
        self._failed = self.maximum + 1
        self._probes_lost = 0

    def next_probe(self, limit: float = float("inf")) -> int:
        """The size of a probe to send now, no larger than `limit`, or 0."""
        if not self.searching or self.probing:
            return 0
        size = self._next_size()
        if size <= limit:
            self.probing = size
            return size
        return 0

    def _next_size(self) -> int:
        """The size that the search would try next, or 0."""
        for size in LADDER:
            if self.current < size < self._failed:
                return size
        middle = (self.current + min(self._failed, self.maximum + 1)) // 2
        return middle if middle - self.current >= STEP_MIN else 0

    def fit(self, limit: float, size: int) -> int:
        """How large packets should be that were of `size`, if `limit` bytes pass in time.

        A rate that wavers must not change the size with each packet: one that has been taken may
        be over the limit by as much again.
        """
        if self.current <= limit:
            return self.current
        for step in reversed(LADDER):
            if step < self.current and step <= limit:
                return max(step, size) if size <= min(2 * limit, self.current) else step
        return BASE_MTU

    def probe_arrived(self, size: int, now: float) -> bool:
        """A probe was acknowledged; True if the MTU has grown."""
        self.probing = self._probes_lost = 0
        grown = size > self.current
        self.current = max(self.current, size)
        self._settle(now)
        return grown

    def probe_lost(self, size: int, now: float) -> None:
        """A probe was lost."""
        self.probing = 0
        self._probes_lost += 1
        if self._probes_lost >= PROBES_MAX:
            self._failed = min(self._failed, size)
            self._probes_lost = 0
            self._settle(now)

    def _settle(self, now: float) -> None:
        upper = min(self._failed, self.maximum + 1)
        ladder_left = any(self.current < size < upper for size in LADDER)
        if not ladder_left and (self.current + upper) // 2 - self.current < STEP_MIN:
            self.searching = False
            self._raise_at = now + RAISE_S

    def large_arrived(self) -> None:
        """A packet larger than BASE_MTU was acknowledged: large ones do pass."""
        self._lost_in_a_row = 0

    def lost(self, size: int, now: float) -> bool:
        """A packet was lost; True if the path must be taken for a black hole of large ones.

        However many are found lost at a time count as one: a queue that overflows drops a burst.
        """
        if size > BASE_MTU and now > self._lost_at:
            self._lost_in_a_row += 1
            self._lost_at = now
        return self._lost_in_a_row >= BLACK_HOLE_LOSSES and self._fall_back(now)

    def timed_out(self, timeouts: int, now: float) -> bool:
        """Time-outs in a row; True if the path must be taken for a black hole of large packets."""
        return timeouts >= BLACK_HOLE_TIMEOUTS and self._fall_back(now)

    def _fall_back(self, now: float) -> bool:
        if self.current == BASE_MTU:
            return False
        self.current = BASE_MTU
        self.probing = self._probes_lost = self._lost_in_a_row = 0
        self.searching = False
        self._raise_at = now + RAISE_S / 10
        return True
