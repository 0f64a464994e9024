"""Sets that only grow, an element a key. Judged by what is lost, late or from nowhere."""

from __future__ import annotations

import itertools
import random
from typing import ClassVar

from cluster.chaos.worker import Worker
from cluster.chaos.workloads.base import Plain

PREFIX = "set/"

# Reading all of a large set again and again would be most of the work: then another is begun.
ELEMENTS_MAX = 300


class GrowSet(Plain):
    """Elements are numbers, each added once."""

    model: ClassVar[str] = "set-full"

    def __init__(self, rng: random.Random) -> None:
        self._elements = itertools.count(1)
        self._newest = f"{PREFIX}0/"

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        if worker.rng.random() < 0.1:
            await self.final(worker)
            return
        element, client = next(self._elements), worker.client
        name = f"{PREFIX}{element // ELEMENTS_MAX}/"

        async def add() -> None:
            await client.put(f"{name}{element:06d}", str(element))

        self._newest = name
        await worker.ask("add", name, element, add)

    async def final(self, worker: Worker) -> bool:
        """Read all of the newest set."""
        name = self._newest

        async def read() -> list[int]:
            return [int(pair.value) for pair in (await worker.client.range(name)).values()]

        return (await worker.ask("read", name, None, read, reads=True)).ok
