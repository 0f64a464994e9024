"""Holders by lease, who work while they believe to hold. Judged by whether ever two believed so.

A holder believes for as long as its lease lasts, from the moment before it asked for it or for its
renewal. What it does it does under its token, the revision at which it acquired: so even one that
has slept too long, and goes on as if nothing had happened, changes nothing that is not its own.

This is the one scenario that trusts clocks to go at about the same rate, as leases do.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from cluster.chaos.system import Refused, Unsure
from cluster.chaos.worker import Worker
from cluster.chaos.workloads.base import Plain

THINGS = ("job1", "job2")
LEASE_S = 3
# What a holder does next: work, renew, give it back, or sleep until it is too late.
DEEDS = ("work",) * 9 + ("renew",) * 5 + ("release",) * 2 + ("sleep",)


@dataclass(slots=True)
class _Hold:
    thing: str
    lease: int
    token: int
    until: float


class Lease(Plain):
    """More workers than things to hold; nobody holds two."""

    model: ClassVar[str] = "leases"

    def __init__(self, rng: random.Random) -> None:
        self._held: dict[int, _Hold] = {}  # by worker

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        hold = self._held.get(worker.index)
        if hold is None:
            await self._acquire(worker, worker.rng.choice(THINGS))
            return
        deed = worker.rng.choice(DEEDS)
        if deed == "sleep":
            await asyncio.sleep(LEASE_S * worker.rng.uniform(1.0, 1.5))
        if deed == "renew" and worker.now() < hold.until:
            await self._renew(worker, hold)
        elif deed == "release":
            await self._release(worker, hold)
        elif not await self._work(worker, hold):
            del self._held[worker.index]

    async def _acquire(self, worker: Worker, thing: str) -> None:
        client, asked, lease = worker.client, worker.now(), 0

        async def acquire() -> dict[str, Any] | None:
            nonlocal lease
            if await client.get(thing) is not None:
                return None
            try:
                lease = await client.grant(LEASE_S)
            except Unsure as error:
                raise Refused(str(error)) from None  # a lease that nothing hangs on
            token = await client.claim(thing, f"process {worker.process}", lease)
            return None if token is None else {"token": token, "until": asked + LEASE_S}

        outcome = await worker.ask("acquire", thing, None, acquire)
        if outcome.ok and outcome.result is not None:
            token, until = outcome.result["token"], outcome.result["until"]
            self._held[worker.index] = _Hold(thing, lease, token, until)

    async def _renew(self, worker: Worker, hold: _Hold) -> None:
        until = worker.now() + LEASE_S

        async def renew() -> float:
            await worker.client.keep_alive(hold.lease)
            return until

        if (await worker.ask("renew", hold.thing, hold.token, renew)).ok:
            hold.until = until

    async def _work(self, worker: Worker, hold: _Hold) -> bool:
        """Whether it may go on: False if its token is worth nothing any more."""
        client, done = worker.client, f"{hold.thing}/done"

        async def work() -> bool:
            return (await client.commit({hold.thing: hold.token}, {done: str(hold.token)}))[0]

        outcome = await worker.ask("work", hold.thing, hold.token, work)
        return not (outcome.ok and outcome.result is False)

    async def _release(self, worker: Worker, hold: _Hold) -> None:
        del self._held[worker.index]

        async def release() -> bool:
            await worker.client.revoke(hold.lease)
            return True

        await worker.ask("release", hold.thing, hold.token, release)
