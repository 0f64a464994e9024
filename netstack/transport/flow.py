"""Flow control of the whole connection: how much we may send, and how much we let the peer send.

A window is given back when the application has taken the bytes, and announced when half of it is
used up: rarer would stall the sender, more often would cost a frame a packet.
"""

from __future__ import annotations

from netstack.transport.errors import ProtocolViolation


class SendCredit:
    """What the peer allows us."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def room(self) -> int:
        """New bytes that may be sent."""
        return self.limit - self.used


class ReceiveCredit:
    """What we allow the peer: `window` bytes beyond what was consumed."""

    __slots__ = ("_announced", "consumed", "received", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.received = 0
        self.consumed = 0
        self._announced = window

    def receive(self, count: int) -> None:
        """New bytes came; raises ProtocolViolation if they were not allowed."""
        self.received += count
        if self.received > self._announced:
            raise ProtocolViolation("more data than the connection was allowed")

    def consume(self, count: int) -> bool:
        """The application took bytes; True when a new limit should be announced."""
        self.consumed += count
        return self._announced - self.consumed <= self.window // 2

    def announce(self) -> int:
        """The new limit."""
        self._announced = self.consumed + self.window
        return self._announced
