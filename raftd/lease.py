"""Leases: keys that vanish unless somebody keeps them alive. Who decides when is the leader.

That a lease exists, and its time to live, is replicated; how much of it is left is only in the
leader's memory. A new leader starts all of them anew with their full time, so that no key is lost
early because of an election (etcd does the same). When one runs out the leader proposes its
revocation like any command.
"""

from __future__ import annotations

import heapq

# Revocations under way at a time: a thousand leases that end together must not flood the log.
REVOKING_MAX = 64


class LeaseKeeper:
    """The remaining time of each lease, on the leader."""

    def __init__(self) -> None:
        self._deadlines: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []
        self._revoking: set[int] = set()

    def __repr__(self) -> str:
        return f"<LeaseKeeper {len(self._deadlines)} revoking={len(self._revoking)}>"

    def start(self, leases: dict[int, int], now: float) -> None:
        """This node leads from now on: every lease has its full time."""
        self._deadlines, self._heap = {}, []
        self._revoking = set()
        for lease_id, ttl_s in leases.items():
            self.keep(lease_id, ttl_s, now)

    def keep(self, lease_id: int, ttl_s: int, now: float) -> None:
        """Granted, or kept alive: full time again."""
        self._deadlines[lease_id] = now + ttl_s
        heapq.heappush(self._heap, (now + ttl_s, lease_id))

    def gone(self, lease_id: int) -> None:
        """Revoked."""
        self._deadlines.pop(lease_id, None)
        self._revoking.discard(lease_id)

    def remaining(self, lease_id: int, now: float) -> float:
        """Seconds left; 0 for one that is over or unknown."""
        return max(0.0, self._deadlines.get(lease_id, now) - now)

    def next_deadline(self) -> float | None:
        """When the next lease runs out."""
        while self._heap and self._deadlines.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # kept alive or revoked since
        return self._heap[0][0] if self._heap else None

    def take_expired(self, now: float) -> list[int]:
        """Leases to revoke now."""
        expired = []
        while len(self._revoking) < REVOKING_MAX:
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                break
            _, lease_id = heapq.heappop(self._heap)
            self._revoking.add(lease_id)
            expired.append(lease_id)
        return expired

    def not_revoked(self, lease_id: int, now: float) -> None:
        """The proposal failed: try again in a second."""
        self._revoking.discard(lease_id)
        if lease_id in self._deadlines:
            self._deadlines[lease_id] = now + 1
            heapq.heappush(self._heap, (now + 1, lease_id))
