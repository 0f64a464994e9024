"""The nonce table: remember every request that was executed, with its reply.

    (client, nonce) ──► when executed, reply         oldest first, so forgetting is from the front

The only one of the four that can answer a duplicate: its client learns the outcome, although the
first reply was lost. It pays with an entry for every request of the last `horizon_s`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from netstack.delivery.messages import Request
from netstack.delivery.suppressor import EXECUTE, IGNORE, Answer, Suppressor, Verdict

# At the default horizon of 1.2 s that is 800 requests a second, in 1 MiB with full replies.
CAPACITY: Final = 1024


class NonceTable(Suppressor):
    """Executes a nonce once in `horizon_s` seconds."""

    def __init__(self, horizon_s: float, capacity: int = CAPACITY) -> None:
        self._horizon_s = horizon_s
        self._capacity = capacity
        self._replies: OrderedDict[tuple[bytes, int], tuple[float, bytes]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<NonceTable {len(self)}/{self._capacity}>"

    def __len__(self) -> int:
        return len(self._replies)

    def admit(self, request: Request, now: float) -> Verdict:
        """See Suppressor."""
        self._forget(now)
        known = self._replies.get((request.client, request.nonce))
        if known is not None:
            return Answer(known[1])
        return EXECUTE if len(self._replies) < self._capacity else IGNORE

    def executed(self, request: Request, reply: bytes, now: float) -> None:
        """See Suppressor."""
        self._replies[request.client, request.nonce] = now, reply

    def _forget(self, now: float) -> None:
        while self._replies:
            key, (executed_at, _) = next(iter(self._replies.items()))
            if now < executed_at + self._horizon_s:
                return
            del self._replies[key]

    def snapshot(self, now: float) -> Any:
        """See Suppressor."""
        self._forget(now)
        return [[*key, now - at, reply] for key, (at, reply) in self._replies.items()]

    def restore(self, saved: Any, now: float) -> None:
        """See Suppressor."""
        for client, nonce, age_s, reply in saved:
            self._replies[client, nonce] = now - age_s, reply
