"""At-most-once execution: the nonce table of the lecture, with bounded memory.

A caller that retries gives each call a key: who it is, the call's sequence number, and the number
below which it waits for nothing any more. The service remembers the outcome of a key until the
caller says it has it (or the caller is forgotten, the least recently seen first).

    key = (client, sequence, done)
    begin(key) -> NEW        run it
               -> RUNNING    the first copy is still at work: wait for its outcome
               -> Outcome    it ran; here is what it answered
               -> FORGOTTEN  a retry of something too old to know: it may have run (indefinite)
               -> FULL       the caller has too many calls open; this one was not run (definite)

The table dies with the process. A retry to a process that was restarted is therefore refused by its
incarnation, before this table is asked (see `service.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

NEW: Final = "new"
RUNNING: Final = "running"
FORGOTTEN: Final = "forgotten"
FULL: Final = "full"

# 1,024 callers with 256 open outcomes each is far above what one laptop's cluster has.
CLIENTS_MAX = 1024
OUTCOMES_PER_CLIENT_MAX = 256


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a completed call answered: a REPLY body or an ERROR's fields."""

    kind: int
    body: Any


@dataclass(slots=True)
class _Client:
    since: int  # the call that made it known: earlier ones may have run, and been forgotten
    done: int
    outcomes: dict[int, Outcome | None] = field(default_factory=dict)
    waiting: dict[int, list[Any]] = field(default_factory=dict)


class OnceTable:
    """Which keyed calls have begun, and what the finished ones answered."""

    def __init__(
        self,
        *,
        clients_max: int = CLIENTS_MAX,
        outcomes_per_client_max: int = OUTCOMES_PER_CLIENT_MAX,
    ) -> None:
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()
        self._clients_max = clients_max
        self._outcomes_max = outcomes_per_client_max

    def __repr__(self) -> str:
        held = sum(len(client.outcomes) for client in self._clients.values())
        return f"<OnceTable clients={len(self._clients)} outcomes={held}>"

    def begin(self, client_id: bytes, sequence: int, done: int, *, retry: bool) -> str | Outcome:
        """What to do with a call that has just arrived; `retry` says that it was sent before."""
        client = self._clients.get(client_id)
        if client is None and retry:
            return FORGOTTEN
        if client is None:
            client = self._clients[client_id] = _Client(sequence, done)
            if len(self._clients) > self._clients_max:
                self._evict()
        else:
            self._clients.move_to_end(client_id)
        if done > client.done:
            client.done = done
            for old in [s for s, o in client.outcomes.items() if s < done and o is not None]:
                del client.outcomes[old]
        if sequence in client.outcomes:
            outcome = client.outcomes[sequence]
            return RUNNING if outcome is None else outcome
        if sequence < (max(client.done, client.since) if retry else client.done):
            return FORGOTTEN
        if len(client.outcomes) >= self._outcomes_max:
            return FULL
        client.outcomes[sequence] = None
        return NEW

    def wait(self, client_id: bytes, sequence: int, waiter: Any) -> None:
        """Keep `waiter` (an open call) until the first copy of its key has finished."""
        self._clients[client_id].waiting.setdefault(sequence, []).append(waiter)

    def finish(self, client_id: bytes, sequence: int, outcome: Outcome) -> list[Any]:
        """Record the outcome; returns the waiters that want it too."""
        client = self._clients.get(client_id)
        if client is None or sequence not in client.outcomes:
            return []
        client.outcomes[sequence] = outcome
        return client.waiting.pop(sequence, [])

    def _evict(self) -> None:
        """Forget the caller not heard of for longest that has nothing running."""
        for client_id, client in self._clients.items():
            if all(outcome is not None for outcome in client.outcomes.values()):
                del self._clients[client_id]
                return
