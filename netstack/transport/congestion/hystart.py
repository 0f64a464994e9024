"""HyStart++ (RFC 9406): a first slow start that ends before the queue overflows.

A queue that fills shows in the round-trip time before anything is lost. When the shortest round
trip of a round is clearly longer than that of the round before, growth is slowed to a quarter for
a few rounds (conservative slow start); if the round trips get short again it was jitter, and slow
start goes on; otherwise it is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from netstack.transport.congestion.base import Acked

RTT_THRESHOLD_MIN_S: Final = 0.004
RTT_THRESHOLD_MAX_S: Final = 0.016
RTT_DIVISOR: Final = 8
SAMPLES_MIN: Final = 8  # of a round, before it is judged
SLOWED_DIVISOR: Final = 4
SLOWED_ROUNDS: Final = 5

NEVER: Final = float("inf")


class HyStart:
    """The rounds of one slow start."""

    __slots__ = (
        "_baseline",
        "_current",
        "_last",
        "_round_end",
        "_rounds_slowed",
        "_samples",
        "over",
    )

    def __init__(self) -> None:
        self._round_end = 0  # bytes delivered when it ends
        self._last = self._current = NEVER  # shortest round trip of the last round, and of this
        self._samples = 0
        self._baseline = NEVER  # in conservative slow start: what was long
        self._rounds_slowed = 0
        self.over = False

    def __repr__(self) -> str:
        return f"<HyStart slowed={self._rounds_slowed} over={self.over}>"

    def growth(self, acked: Acked, rtt_s: float) -> int:
        """By how many bytes the window grows for `acked`."""
        if acked.delivered_before >= self._round_end:
            self._begin_round(acked.delivered)
        self._current = min(self._current, rtt_s)
        self._samples += 1
        slowed = self._baseline < NEVER
        if self._samples >= SAMPLES_MIN:
            if not slowed and self._last < NEVER:
                margin = min(
                    max(self._last / RTT_DIVISOR, RTT_THRESHOLD_MIN_S), RTT_THRESHOLD_MAX_S
                )
                if self._current >= self._last + margin:
                    self._baseline, self._rounds_slowed = self._current, 0
            elif slowed and self._current < self._baseline:
                self._baseline = NEVER
        return acked.size // SLOWED_DIVISOR if slowed else acked.size

    def _begin_round(self, end: int) -> None:
        if self._baseline < NEVER:
            self._rounds_slowed += 1
            self.over = self._rounds_slowed >= SLOWED_ROUNDS
        self._round_end = end
        self._last, self._current = self._current, NEVER
        self._samples = 0
