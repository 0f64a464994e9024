"""A lock whose holder gets a fencing token. Judged by whether it ever had two holders.

A token is the revision at which the lock was taken, so it grows; a release names it, and is worth
nothing when somebody else has the lock by then.
"""

from __future__ import annotations

import random
from typing import ClassVar

from cluster.chaos.worker import Worker
from cluster.chaos.workloads.base import Keys, Plain

# What an open lock holds.
FREE = ""


class Lock(Plain):
    """A few locks at a time. One that somebody took without learning of it stays taken."""

    model: ClassVar[str] = "lock"

    def __init__(self, rng: random.Random) -> None:
        self._keys = Keys("k", rng, at_once=3, operations=40)
        self._held: dict[int, tuple[str, int]] = {}  # by worker: what it holds

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        held = self._held.pop(worker.index, None)
        if held is not None:
            await self._release(worker, *held)
            return
        key = self._keys.draw()
        outcome = await self._acquire(worker, key)
        if outcome is not None:
            self._held[worker.index] = (key, outcome)

    async def _acquire(self, worker: Worker, key: str) -> int | None:
        client, owner = worker.client, f"process {worker.process}"

        async def acquire() -> int | None:
            pair = await client.get(key)
            if pair is not None and pair.value != FREE:
                return None
            done, token = await client.commit({key: pair.mod if pair else 0}, {key: owner})
            return token if done else None

        outcome = await worker.ask("acquire", key, None, acquire)
        return outcome.result if outcome.ok else None

    async def _release(self, worker: Worker, key: str, token: int) -> None:
        async def release() -> bool:
            return (await worker.client.commit({key: token}, {key: FREE}))[0]

        await worker.ask("release", key, token, release)
