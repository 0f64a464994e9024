"""What sender and receiver have agreed on, so that the receiver may forget.

    first copy                    gives up               forgets
    ├──────── give_up_s ──────────┤── one more RTT ──┤
    sender:   copies may leave until here            │
    receiver: copies may arrive until ───────────────┘   horizon_s

Lecture 19.20: "if the sender always gives up after five RTT, the receiver can safely discard
nonces that are older than five RTT". The last copy may leave just before the sender gives up and
is then still on its way, for which the receiver adds one more RTT. Safe is that only as far as no
datagram travels for longer than an RTT: one that does is executed again, and all that can be done
about it is to wait longer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a request lives. Both sides must be given the same.

    Args:
        rtt_s: the longest round trip that is counted on. Too small, and late copies are executed
            twice; too large, and the receiver remembers for longer.
        patience_rtts: after so many of them the sender gives up.
        tries_max: copies of a request that are sent at the most, the first included.
    """

    rtt_s: float = 0.2
    patience_rtts: int = 5
    tries_max: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.rtt_s < float("inf"):
            raise ValueError(f"rtt_s must be a positive number of seconds, not {self.rtt_s}")
        for name in ("patience_rtts", "tries_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")

    @property
    def give_up_s(self) -> float:
        """From the first copy to GaveUp at the latest."""
        return self.patience_rtts * self.rtt_s

    @property
    def horizon_s(self) -> float:
        """From an execution until no copy of its request can arrive any more."""
        return (self.patience_rtts + 1) * self.rtt_s
