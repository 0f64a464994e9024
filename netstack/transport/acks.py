"""What has come from the peer, and when it is owed an acknowledgement (RFC 9000 §13.2).

At once after every second packet that asks for one, after a gap and after a mark of congestion;
else after `max_ack_delay_s`, if nothing that could carry it leaves before. "At once" is the end of
this turn of the loop: a train of packets gets one acknowledgement.

What leaves anyway carries one that is owed, unless the one before has only just left: where
requests and answers follow one another, every second packet has one, and the others are spared
the work, which is a tenth of all that they cost.
"""

from __future__ import annotations

from typing import Final

from netstack.runtime.endpoint import CE, ECT0
from netstack.transport import frames as f
from netstack.transport.ranges import RangeSet

# An acknowledgement is due after this many packets that ask for one.
ACK_EVERY: Final = 2

# After the one before, a single packet's acknowledgement waits so long for a second packet's.
APART_S: Final = 0.001


class AckState:
    """The packets received, and what is owed for them."""

    __slots__ = (
        "_highest_at",
        "_max_delay_s",
        "_sent_at",
        "ce",
        "due_at",
        "due_now",
        "ect0",
        "owed",
        "received",
    )

    def __init__(self, max_delay_s: float) -> None:
        self._max_delay_s = max_delay_s
        self._highest_at = 0.0  # when the highest packet came
        self._sent_at = float("-inf")  # when the last acknowledgement left
        self.received = RangeSet()
        self.owed = 0  # packets that ask for an acknowledgement and have none
        self.due_at: float | None = None
        self.due_now = False
        self.ect0 = 0  # packets that came with this mark
        self.ce = 0

    def __repr__(self) -> str:
        return f"<AckState highest={self.received.highest} owed={self.owed} ce={self.ce}>"

    def arrived(self, number: int, mark: int, now: float, *, eliciting: bool) -> None:
        """A packet has come with these two ECN bits; `eliciting`: it asks to be acknowledged."""
        received = self.received
        in_order = received.add(number)
        if number == received.highest:
            self._highest_at = now
        if mark == ECT0:
            self.ect0 += 1
        elif mark == CE:
            self.ce += 1
        if eliciting:
            self.owed += 1
            if self.owed >= ACK_EVERY or not in_order or mark == CE:
                self.due_now = True
            elif self.due_at is None:
                self.due_at = now + self._max_delay_s

    def is_due(self, now: float) -> bool:
        """Whether an acknowledgement should leave though nothing else does."""
        return self.due_now or (self.due_at is not None and now >= self.due_at)

    def rides(self, now: float) -> bool:
        """Whether a packet that leaves now should carry an acknowledgement."""
        return self.owed > 0 and (self.is_due(now) or now - self._sent_at >= APART_S)

    def frame(self, now: float) -> bytes:
        """The ACK."""
        counts = (self.ect0, self.ce) if self.ect0 or self.ce else None
        return f.encode_ack(self.received, now - self._highest_at, counts)

    def sent(self, now: float) -> None:
        """It has left."""
        self._sent_at = now
        self.owed = 0
        self.due_now = False
        self.due_at = None
