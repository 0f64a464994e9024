"""A fresh port for every request, closed as soon as it is served.

    OPEN ──► port 7      REQUEST to 7 ──► execute, close 7      the same again ──► 7 is closed

Nothing is remembered of the request: a duplicate comes to a closed port. But ports are numbers of
a finite set and are used again, and a copy that is old enough meets a new tenant:

    port 7   │ open: A │ resting ……… horizon │ free │ open: B │
                  A ✓         A ✗                        A ✓ again, and B finds it closed

Resting (TCP's TIME_WAIT is the same idea) is what makes the tombstone last as long as copies do;
`rest_s=0` is the version without. The price is a second round trip for every request, and that no
more than ports_max / (rest_s + the time it is open) requests a second can be served.
"""

from __future__ import annotations

from typing import Any, Final

from netstack.delivery.messages import Request
from netstack.delivery.suppressor import EXECUTE, Suppressor, Verdict

PORTS_MAX: Final = 1024


class FreshPort(Suppressor):
    """Executes one request a port.

    Args:
        horizon_s: a port that nobody has used for so long is closed.
        rest_s: how long a closed port stays unused.
    """

    def __init__(
        self, horizon_s: float, *, rest_s: float | None = None, ports_max: int = PORTS_MAX
    ) -> None:
        self._horizon_s = horizon_s
        self._rest_s = horizon_s if rest_s is None else rest_s
        self._ports_max = ports_max
        self._next = 0
        self._opened: dict[int, float] = {}  # port -> when; the oldest first
        self._closed: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"<FreshPort open={len(self._opened)} resting={len(self._closed)}>"

    def __len__(self) -> int:
        return len(self._opened) + len(self._closed)

    def open(self, now: float) -> int | None:
        """The next port that is neither open nor resting."""
        self._forget(now)
        if len(self) >= self._ports_max:
            return None
        # The ports of a life lie above those of the life before.
        first = self.port * self._ports_max + 1
        while (port := first + self._next % self._ports_max) in self._opened or (
            port in self._closed
        ):
            self._next += 1
        self._next += 1
        self._opened[port] = now
        return port

    def is_open(self, port: int, now: float) -> bool:
        """See Suppressor."""
        self._forget(now)
        return port in self._opened

    def admit(self, request: Request, now: float) -> Verdict:
        """See Suppressor."""
        return EXECUTE

    def executed(self, request: Request, reply: bytes, now: float) -> None:
        """See Suppressor."""
        self._close(request.port, now)

    def _close(self, port: int, now: float) -> None:
        del self._opened[port]
        self._closed[port] = now

    def _forget(self, now: float) -> None:
        for port, opened_at in list(self._opened.items()):
            if now < opened_at + self._horizon_s:
                break
            self._close(port, now)
        for port, closed_at in list(self._closed.items()):
            if now < closed_at + self._rest_s:
                break
            del self._closed[port]

    def snapshot(self, now: float) -> Any:
        """See Suppressor."""
        self._forget(now)
        opened = [[port, now - at] for port, at in self._opened.items()]
        closed = [[port, now - at] for port, at in self._closed.items()]
        return [self._next, opened, closed]

    def restore(self, saved: Any, now: float) -> None:
        """See Suppressor."""
        self._next, opened, closed = saved
        self._opened = {port: now - age_s for port, age_s in opened}
        self._closed = {port: now - age_s for port, age_s in closed}
