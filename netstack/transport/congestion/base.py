"""What a congestion controller is told, and what it answers: how many bytes may be in flight."""

from __future__ import annotations

from typing import Protocol


class CongestionController(Protocol):
    """Bytes throughout. `sent_at` is when the packet in question had been sent."""

    cwnd: int
    ssthresh: float

    def on_acknowledged(self, size: int, sent_at: float, now: float, *, limited: bool) -> None:
        """`size` bytes arrived; `limited`: the window, not the application, was the bound."""

    def on_lost(self, sent_at: float, now: float) -> None:
        """A packet sent at `sent_at` is lost."""

    def on_persistent_congestion(self) -> None:
        """Everything sent over several time-outs was lost: start over (RFC 9002 §7.6)."""

    def on_mtu(self, mtu: int) -> None:
        """The path carries datagrams of `mtu` bytes from now on."""
