"""Accounts and transfers between them. Judged by whether money appears or vanishes."""

from __future__ import annotations

import random
from typing import ClassVar

from cluster.chaos.system import Refused
from cluster.chaos.worker import Worker

PREFIX = "account/"
ACCOUNTS = 6
BALANCE = 100


class Bank:
    """A fixed number of accounts, opened beforehand with the same balance."""

    model: ClassVar[str] = "bank"

    def __init__(self, rng: random.Random) -> None:
        self._names = [f"{PREFIX}{number}" for number in range(ACCOUNTS)]

    async def prepare(self, worker: Worker) -> None:
        """Open the accounts that are not there yet: all of them at once."""
        guards = dict.fromkeys(self._names, 0)
        await worker.client.commit(guards, dict.fromkeys(self._names, str(BALANCE)))

    async def turn(self, worker: Worker) -> None:
        """See Workload."""
        if worker.rng.random() < 0.4:
            await self.final(worker)
            return
        source, target = worker.rng.sample(self._names, 2)
        amount, client = worker.rng.randint(1, 20), worker.client

        async def transfer() -> None:
            found = await client.read([source, target])
            here, there = found[source], found[target]
            if here is None or there is None:
                raise Refused("there is no such account")
            if int(here.value) < amount:
                raise Refused("there is not enough on it")
            guards = {source: here.mod, target: there.mod}
            puts = {source: int(here.value) - amount, target: int(there.value) + amount}
            done, _ = await client.commit(guards, {key: str(sum_) for key, sum_ in puts.items()})
            if not done:
                raise Refused("one of the accounts has changed meanwhile")

        value = {"from": source, "to": target, "amount": amount}
        await worker.ask("transfer", None, value, transfer)

    async def final(self, worker: Worker) -> bool:
        """Read all balances at one moment."""

        async def read() -> dict[str, int]:
            found = await worker.client.read(self._names)
            return {key: int(pair.value) for key, pair in found.items() if pair is not None}

        return (await worker.ask("read", None, None, read, reads=True)).ok
