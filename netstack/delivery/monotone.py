"""The monotone sequence: remember the highest number of each client, and refuse all up to it.

    arrives   1   2   2   4   3                highest  4
              ✓   ✓   ✗   ✓   ✗ ◄─ not a duplicate: overtaken, and lost

One number instead of a table, and even a copy that is later than any horizon is refused as long
as its client is known. But the numbers must arrive in order: with one request at a time (lock
step) they do, with several under way a loss or a detour is enough to lose the slower one.

A client of which nothing was heard for `horizon_s` is forgotten: its number is the tombstone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from netstack.delivery.messages import NOT_ABOVE, Request
from netstack.delivery.suppressor import EXECUTE, IGNORE, Refuse, Suppressor, Verdict

CLIENTS_MAX: Final = 1024


class Monotone(Suppressor):
    """Executes numbers above the highest that a client has shown."""

    def __init__(self, horizon_s: float, capacity: int = CLIENTS_MAX) -> None:
        self._horizon_s = horizon_s
        self._capacity = capacity
        # client -> (when last executed, highest number), the longest silent first
        self._highest: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Monotone {len(self)}/{self._capacity}>"

    def __len__(self) -> int:
        return len(self._highest)

    def admit(self, request: Request, now: float) -> Verdict:
        """See Suppressor."""
        self._forget(now)
        _, highest = self._highest.get(request.client, (now, -1))
        if request.nonce <= highest:
            return Refuse(NOT_ABOVE)
        known = request.client in self._highest
        return EXECUTE if known or len(self._highest) < self._capacity else IGNORE

    def executed(self, request: Request, reply: bytes, now: float) -> None:
        """See Suppressor."""
        self._highest[request.client] = now, request.nonce
        self._highest.move_to_end(request.client)

    def _forget(self, now: float) -> None:
        while self._highest:
            client, (heard_at, _) = next(iter(self._highest.items()))
            if now < heard_at + self._horizon_s:
                return
            del self._highest[client]

    def snapshot(self, now: float) -> Any:
        """See Suppressor."""
        self._forget(now)
        return [[client, now - at, highest] for client, (at, highest) in self._highest.items()]

    def restore(self, saved: Any, now: float) -> None:
        """See Suppressor."""
        for client, age_s, highest in saved:
            self._highest[client] = now - age_s, highest
