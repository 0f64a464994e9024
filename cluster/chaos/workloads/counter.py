"""A counter that many increment, by compare-and-swap and with retries. Judged by the totals.

An increment that is refused is tried again until it is done, so it must be counted once; one whose
answer never came may be counted once or not at all, and never twice.
"""

from __future__ import annotations

import random
from typing import ClassVar

from cluster.chaos.system import Refused
from cluster.chaos.worker import Worker
from cluster.chaos.workloads.base import Plain

KEY = "counter"

# Two who want the same at once get in each other's way; so many times, and one gives up.
TRIES = 8


class Counter(Plain):
    """One key."""

    model: ClassVar[str] = "counter"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        if worker.rng.random() < 0.3:
            await self.final(worker)
            return
        amount, client = worker.rng.randint(1, 5), worker.client

        async def add() -> None:
            for _ in range(TRIES):
                pair = await client.get(KEY)
                total = int(pair.value) if pair else 0
                guard = {KEY: pair.mod if pair else 0}
                done, _ = await client.commit(guard, {KEY: str(total + amount)})
                if done:
                    return
            raise Refused("somebody else was always quicker")

        await worker.ask("add", KEY, amount, add)

    async def final(self, worker: Worker) -> bool:
        """Read it."""

        async def read() -> int:
            pair = await worker.client.get(KEY)
            return int(pair.value) if pair else 0

        return (await worker.ask("read", KEY, None, read, reads=True)).ok
