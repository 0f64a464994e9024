"""How fast the path is at least, and what that allows: no packet holds a link for long.

Path-MTU discovery finds what a path *carries*; on loopback 65,507 bytes. A link of 100 kB/s is busy
with one such packet for 0.65 s, and whatever else has to pass, a heartbeat say, waits. So packets,
and the probes that look for larger ones, are no larger than what passes in HOLD_S.

    sample     bytes that arrived while a packet was under way / how long that was (as BBR's)
    faster     is believed of any sample: the path did carry that
    slower     only of a packet of some size that took longer than HOLD_S

A sample is a lower bound: what has little to say measures little, and a peer that was busy looks
like a slow link. So a small message never lowers the rate, nor does anything that came through
within HOLD_S: on a fast path nothing is bounded, however little is sent. And the bound is not kept:
the first packet that is quick again, even a small one, lifts it. cwnd / srtt would not do: of a
window that is not filled it tells nothing, and srtt follows only after several packets of 0.65 s.
"""

from __future__ import annotations

from typing import Final

from netstack.transport.config import BASE_MTU

# A packet may hold the link for so long; a quarter of a heartbeat interval.
HOLD_S: Final = 0.010

# A smaller packet says nothing about a path that is slow.
TELLING_BYTES: Final = BASE_MTU // 2


class PathRate:
    """Bytes a second that the path carries at least; 0 while nothing is known."""

    __slots__ = ("bytes_per_s",)

    def __init__(self) -> None:
        self.bytes_per_s = 0.0

    def __repr__(self) -> str:
        return f"<PathRate {self.bytes_per_s / 1e6:.3f} MB/s>"

    def restart(self) -> None:
        """Another path, of which nothing is known."""
        self.bytes_per_s = 0.0

    def sample(self, delivered: int, took_s: float, size: int) -> None:
        """`delivered` bytes arrived in the time that a packet of `size` bytes was under way."""
        rate = delivered / took_s
        if rate > self.bytes_per_s or (took_s > HOLD_S and size >= TELLING_BYTES):
            self.bytes_per_s = rate

    @property
    def packet_bytes_max(self) -> float:
        """What passes in HOLD_S."""
        return self.bytes_per_s * HOLD_S
