"""Transactions that append to lists and read them. Judged by who saw whom (Elle).

The store has no transactions that read and then write; they are made as its users make them: read
at one moment, then write on condition that nothing that was read has changed since.
"""

from __future__ import annotations

import itertools
import json
import random
from typing import Any, ClassVar

from cluster.chaos.system import Refused
from cluster.chaos.worker import Worker
from cluster.chaos.workloads.base import Keys, Plain


class Append(Plain):
    """One to four appends and reads of a few lists, all or nothing."""

    model: ClassVar[str] = "appends"

    def __init__(self, rng: random.Random) -> None:
        self._keys = Keys("l", rng, at_once=4, operations=60)
        self._values = itertools.count(1)

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        steps: list[list[Any]] = []
        for _ in range(worker.rng.randint(1, 4)):
            key = self._keys.draw()
            if worker.rng.random() < 0.5:
                steps.append(["append", key, next(self._values)])
            else:
                steps.append(["r", key, None])
        await self._transact(worker, steps)

    async def final(self, worker: Worker) -> bool:
        """Read every list in use once more."""
        return await self._transact(worker, [["r", key, None] for key in self._keys.all()])

    async def _transact(self, worker: Worker, steps: list[list[Any]]) -> bool:
        writes = any(step[0] == "append" for step in steps)
        client = worker.client

        async def transact() -> list[list[Any]]:
            found = await client.read(sorted({key for _, key, _ in steps}))
            lists = {key: json.loads(pair.value) if pair else [] for key, pair in found.items()}
            done, changed = [], {}
            for f, key, value in steps:
                if f == "append":
                    lists[key] = [*lists[key], value]
                    changed[key] = json.dumps(lists[key])
                    done.append([f, key, value])
                else:
                    done.append([f, key, lists[key]])
            if changed:
                guards = {key: pair.mod if pair else 0 for key, pair in found.items()}
                committed, _ = await client.commit(guards, changed)
                if not committed:
                    raise Refused("what was read has changed since")
            return done

        return (await worker.ask("txn", None, steps, transact, reads=not writes)).ok
