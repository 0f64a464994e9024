"""Registers: read, write, compare-and-swap. Judged by whether they are linearizable."""

from __future__ import annotations

import itertools
import random
from typing import ClassVar

from cluster.chaos.worker import Worker
from cluster.chaos.workloads.base import Keys, Plain


class Register(Plain):
    """A few registers at a time; every value is written once, so that a read names its write."""

    model: ClassVar[str] = "register"

    def __init__(self, rng: random.Random) -> None:
        self._keys = Keys("r", rng)
        self._values = itertools.count(1)
        self._seen: dict[str, int | None] = {}  # a guess for the next compare-and-swap

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        key, client, rng = self._keys.draw(), worker.client, worker.rng
        kind = rng.random()
        if kind < 0.5:
            await self._read(worker, key)
        elif kind < 0.8:
            value = next(self._values)

            async def write() -> None:
                await client.put(key, str(value))

            if (await worker.ask("write", key, value, write)).ok:
                self._seen[key] = value
        else:
            old, new = self._seen.get(key), next(self._values)

            async def swap() -> bool:
                return (await client.swap(key, None if old is None else str(old), str(new)))[0]

            if (await worker.ask("cas", key, [old, new], swap)).result:
                self._seen[key] = new

    async def _read(self, worker: Worker, key: str) -> bool:
        async def read() -> int | None:
            pair = await worker.client.get(key)
            return None if pair is None else int(pair.value)

        outcome = await worker.ask("read", key, None, read, reads=True)
        if outcome.ok:
            self._seen[key] = outcome.result
        return outcome.ok

    async def final(self, worker: Worker) -> bool:
        """Read every register in use once more."""
        return all([await self._read(worker, key) for key in self._keys.all()])
