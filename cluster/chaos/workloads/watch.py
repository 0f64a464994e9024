"""Followers of a range that others write. Judged by whether each was told everything, in order.

A follower listens for a second or so, hangs up, and takes the watch up again from where it was:
what happened in between it must be told all the same. Now and then somebody compacts the history,
so that a follower who was away must be told that it has missed something.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import ClassVar

from cluster.chaos.system import Forgotten, Refused, Unsure
from cluster.chaos.worker import Worker

PREFIX = "watch/"
KEYS = 8
FOLLOWERS = 2  # of the workers; the others write
LISTEN_S = 1.0
CATCH_UP_S = 10.0
# Of all writes; and so many revisions before the newest that is known, or less.
COMPACTIONS = 0.03
KEPT_MAX = 20


class Watch:
    """The first workers follow, the others put and delete."""

    model: ClassVar[str] = "watches"

    def __init__(self, rng: random.Random) -> None:
        self._values = itertools.count(1)
        self._begin = 0  # the revision of the first key: where all followers begin
        self._next: dict[int, int] = {}  # of each follower: the revision it was not told of yet
        self._newest = 0  # that a writer was told of

    async def prepare(self, worker: Worker) -> None:
        """A first key, so that there is a revision to begin with."""
        if not self._begin:
            value = str(next(self._values))
            outcome = await worker.ask(
                "put", f"{PREFIX}0", value, lambda: worker.client.put(f"{PREFIX}0", value)
            )
            if not outcome.ok:
                raise Refused("not now")
            self._begin = outcome.result

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        if worker.index < FOLLOWERS:
            await self._follow(worker, LISTEN_S * worker.rng.uniform(0.5, 1.5))
        elif worker.rng.random() < COMPACTIONS:
            await self._compact(worker)
        else:
            self._newest = max(self._newest, await self._write(worker))

    async def _compact(self, worker: Worker) -> None:
        upto = max(1, self._newest - worker.rng.randrange(KEPT_MAX))
        await worker.ask("compact", PREFIX, upto, lambda: worker.client.compact(upto))

    async def _write(self, worker: Worker) -> int:
        """A put, or now and then two at once, or a delete; the revision of a put, or 0."""
        key, client = f"{PREFIX}{worker.rng.randrange(KEYS)}", worker.client
        dice = worker.rng.random()
        if dice < 0.2:
            other = f"{PREFIX}other"
            puts = {key: str(next(self._values)), other: str(next(self._values))}

            async def both() -> int:
                return (await client.commit({}, puts))[1]

            outcome = await worker.ask("commit", PREFIX, puts, both)
            return outcome.result if outcome.ok else 0
        if dice < 0.4:

            async def delete() -> list[object]:
                return list(await client.delete(key))

            await worker.ask("delete", key, None, delete)
            return 0
        value = str(next(self._values))
        outcome = await worker.ask("put", key, value, lambda: client.put(key, value))
        return outcome.result if outcome.ok else 0

    async def _follow(self, worker: Worker, seconds: float, until: int = 0) -> None:
        """Listen for a time, or until a revision has come."""
        begin = self._next.get(worker.index, self._begin)
        try:
            async with (
                asyncio.timeout(seconds),
                contextlib.aclosing(worker.client.watch(PREFIX, begin)) as batches,
            ):
                async for batch in batches:
                    told = [[change.revision, change.key, change.value] for change in batch]
                    worker.told("watch", PREFIX, begin, told)
                    self._next[worker.index] = batch[-1].revision + 1
                    if until and batch[-1].revision >= until:
                        return
        except Forgotten as gap:
            worker.told("gap", PREFIX, begin, gap.oldest)
            self._next[worker.index] = gap.oldest
        except (TimeoutError, Refused, Unsure):
            return

    async def final(self, worker: Worker) -> bool:
        """One more change, of which the first follower must be told."""
        last = await self._write(worker)
        if not last:
            return False
        await self._follow(worker, CATCH_UP_S, until=last)
        return self._next.get(worker.index, 0) > last
