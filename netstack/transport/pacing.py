"""Packets spread over the round trip, instead of a window at once (RFC 9002 §7.7).

A bucket that fills with the rate of the congestion controller; what is in it may leave. It holds a
burst, so that timers need not be finer than they are and packets still leave in trains.
"""

from __future__ import annotations

from typing import Final

# What a timer may be late by, and the smallest burst: more often would cost more than it gains.
BURST_S: Final = 0.002
BURST_PACKETS: Final = 10


class Pacer:
    """How many bytes may leave now, and when the next may."""

    __slots__ = ("_at", "_bytes")

    def __init__(self, mtu: int) -> None:
        self._bytes = float(BURST_PACKETS * mtu)
        self._at = 0.0

    def __repr__(self) -> str:
        return f"<Pacer {self._bytes:.0f} bytes at {self._at:.6f}>"

    def allowance(self, now: float, rate: float, mtu: int) -> float:
        """Bytes that may leave now, at `rate` bytes a second."""
        capacity = max(BURST_PACKETS * mtu, rate * BURST_S)
        if rate < float("inf"):
            self._bytes = min(capacity, self._bytes + (now - self._at) * rate)
        else:
            self._bytes = capacity
        self._at = now
        return self._bytes

    def sent(self, size: int) -> None:
        """So many bytes have left."""
        self._bytes -= size

    def next_at(self, rate: float, mtu: int) -> float:
        """When a packet's worth will be there."""
        return self._at + max(0.0, mtu - self._bytes) / rate
