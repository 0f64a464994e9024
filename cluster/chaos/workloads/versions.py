"""Keys with revisions: put, get, delete, compare-and-swap, each answer with the store's revision.

Judged by the multi-version model: not only the values must fit an order, but the revisions too.
"""

from __future__ import annotations

import itertools
import random
from typing import Any, ClassVar

from cluster.chaos.worker import Worker
from cluster.chaos.workloads.base import Keys, Plain


class Versions(Plain):
    """A few keys at a time, which come and go."""

    model: ClassVar[str] = "kv"

    def __init__(self, rng: random.Random) -> None:
        self._keys = Keys("v", rng)
        self._values = itertools.count(1)
        self._seen: dict[str, str | None] = {}

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        key, client, kind = self._keys.draw(), worker.client, worker.rng.random()
        if kind < 0.4:
            await self._get(worker, key)
        elif kind < 0.7:
            value = str(next(self._values))
            await worker.ask("put", key, value, lambda: client.put(key, value))
            self._seen[key] = value
        elif kind < 0.85:

            async def delete() -> list[Any]:
                return list(await client.delete(key))

            await worker.ask("delete", key, None, delete)
        else:
            old, new = self._seen.get(key), str(next(self._values))

            async def swap() -> list[Any]:
                return list(await client.swap(key, old, new))

            await worker.ask("cas", key, [old, new], swap)

    async def _get(self, worker: Worker, key: str) -> bool:
        async def get() -> list[Any] | None:
            pair = await worker.client.get(key)
            return None if pair is None else list(pair)

        outcome = await worker.ask("get", key, None, get, reads=True)
        if outcome.ok:
            self._seen[key] = outcome.result[0] if outcome.result else None
        return outcome.ok

    async def final(self, worker: Worker) -> bool:
        """Read every key in use once more."""
        return all([await self._get(worker, key) for key in self._keys.all()])
