"""Marks instead of drops: Explicit Congestion Notification, and whether the path carries it.

A sender that understands marks says so in each packet (ECT); a router whose queue grows changes it
to CE instead of dropping the packet; the receiver counts and tells (RFC 9000 §13.4). Some paths
erase the field or, worse, set it: then the counts do not add up, and marking ends.
"""

from __future__ import annotations

from netstack.runtime.endpoint import ECT0, NOT_ECT


class EcnPath:
    """What is sent in the two bits, and what the peer's counts say."""

    __slots__ = ("_ce", "_ect0", "capable", "codepoint", "marks")

    def __init__(self, *, wanted: bool) -> None:
        self.codepoint = ECT0 if wanted else NOT_ECT
        self.capable = False  # the peer's counts have confirmed it
        self.marks = 0  # packets that routers marked
        self._ect0 = 0
        self._ce = 0

    def __repr__(self) -> str:
        state = "off" if not self.codepoint else "capable" if self.capable else "testing"
        return f"<EcnPath {state} marks={self.marks}>"

    def acknowledged(self, packets: int, counts: tuple[int, int] | None) -> int:
        """`packets` sent with ECT are acknowledged; returns how many of them were marked.

        `counts` are the peer's of ECT(0) and CE; None: it saw neither.
        """
        if not self.codepoint or not packets:
            return 0
        ect0, ce = counts or (0, 0)
        marked = ce - self._ce
        # RFC 9000 §13.4.2.1: each must have come with one of the two.
        if marked < 0 or ect0 + ce - self._ect0 - self._ce < packets:
            self.codepoint = NOT_ECT
            return 0
        self._ect0, self._ce = ect0, ce
        self.capable = True
        self.marks += marked
        return marked
