"""Clients that write all the time and remember what they were told, and the verdict over it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from raftd.client import NotReached, OutcomeUnknown, RaftClient, Refused

WRITERS = 8


@dataclass
class Writer:
    """One key, written 1, 2, 3 … by one client, one after the other."""

    key: bytes
    asked: int = 0
    acknowledged: list[int] = field(default_factory=list)
    never: set[int] = field(default_factory=set)  # definite failures: must not show up

    async def run(self, client: RaftClient) -> None:
        while True:
            self.asked += 1
            value = self.asked
            try:
                await client.put(self.key, b"%d" % value, timeout_s=5.0)
            except OutcomeUnknown:
                continue
            except (NotReached, Refused):
                self.never.add(value)
            else:
                self.acknowledged.append(value)


class Load:
    """WRITERS writers over one client; a context manager."""

    def __init__(self, client: RaftClient, prefix: bytes) -> None:
        self.client = client
        self.prefix = prefix
        self.writers = [Writer(prefix + b"%d" % i) for i in range(WRITERS)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(w.run(self.client)) for w in self.writers]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def acknowledged(self) -> int:
        return sum(len(writer.acknowledged) for writer in self.writers)

    async def progress(self, count: int, within_s: float) -> None:
        """Wait until `count` more writes have been acknowledged."""
        wanted = self.acknowledged + count
        async with asyncio.timeout(within_s):
            while self.acknowledged < wanted:  # noqa: ASYNC110 - told by no one
                await asyncio.sleep(0.01)

    async def judge(self) -> None:
        """Each acknowledged write once, in order; nothing twice; nothing that was refused."""
        history: dict[bytes, list[int]] = {writer.key: [] for writer in self.writers}
        await self.client.put(self.prefix + b"end", b"")
        async for batch in self.client.watch(self.prefix, prefix=True, revision=1):
            for event in batch.events:
                if event.pair.key in history:
                    history[event.pair.key].append(int(event.pair.value))
            if batch.events[-1].pair.key == self.prefix + b"end":
                break
        for writer in self.writers:
            applied = history[writer.key]
            assert applied == sorted(set(applied)), f"{writer.key!r}: twice or out of order"
            lost = set(writer.acknowledged) - set(applied)
            assert not lost, f"{writer.key!r}: acknowledged and lost: {sorted(lost)}"
            assert not writer.never & set(applied), f"{writer.key!r}: refused and yet applied"
