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

# Deadlines that were moved and still lie in the heap, beyond one for each lease.
STALE_MAX = 64


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

    def keep(self, lease_id: int, ttl_s: int, now: float) -> bool:
        """Granted, or kept alive: full time again. False for one whose end is under way."""
        if lease_id in self._revoking:
            return False
        self._set(lease_id, now + ttl_s)
        return True

    def gone(self, lease_id: int) -> None:
        """Revoked."""
        self._deadlines.pop(lease_id, None)
        self._revoking.discard(lease_id)

    def remaining(self, lease_id: int, now: float) -> float:
        """Seconds left; 0 for one that is over or unknown."""
        if lease_id in self._revoking:
            return 0.0
        return max(0.0, self._deadlines.get(lease_id, now) - now)

    def next_deadline(self) -> float | None:
        """When the next lease runs out."""
        while self._heap and self._is_stale(*self._heap[0]):
            heapq.heappop(self._heap)
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
            self._set(lease_id, now + 1)

    def _set(self, lease_id: int, deadline: float) -> None:
        self._deadlines[lease_id] = deadline
        heapq.heappush(self._heap, (deadline, lease_id))
        if len(self._heap) > 2 * len(self._deadlines) + STALE_MAX:
            self._heap = [(at, i) for i, at in self._deadlines.items() if i not in self._revoking]
            heapq.heapify(self._heap)

    def _is_stale(self, deadline: float, lease_id: int) -> bool:
        """Whether it was kept alive or revoked since, or is being revoked."""
        return self._deadlines.get(lease_id) != deadline or lease_id in self._revoking
