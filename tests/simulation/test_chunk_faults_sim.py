"""The chunk store under seeded faults, and the one promise it makes.

A sealed file reads back byte-identical as long as one good replica of each of its chunks lives, and
after healing each chunk has as many as it should.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from chunk_kit import KIB, run

from mapreduce.store.client import StoreError


class Faults:
    """What befalls the servers: one at a time, so that a good replica of everything is left."""

    def __init__(self, chunks, rng):
        self.chunks = chunks
        self.rng = rng
        self.counts = {}

    async def one(self):
        world, rng = self.chunks.world, self.rng
        kind = rng.choice(["crash", "crash", "pause", "cut", "flip", "full", "raft", "disk"])
        name = rng.choice(self.chunks.names)
        node = world.nodes[name]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == "crash":
            world.crash(name)
            await asyncio.sleep(rng.random() * 6)
            world.restart(name)
        elif kind == "pause":
            world.pause(name)
            await asyncio.sleep(rng.random() * 8)
            world.resume(name)
        elif kind == "cut":
            everyone = list(world.nodes)
            world.network.partition([[name], [n for n in everyone if n != name]])
            await asyncio.sleep(rng.random() * 6)
            world.network.heal()
        elif kind == "flip":
            held = sorted(self.chunks.held(name).held.items())
            held = [(chunk, sums) for chunk, sums in held if sums.length]
            if held:
                chunk, sums = rng.choice(held)
                self.chunks.flip(name, chunk, rng.randrange(sums.length))
        elif kind == "full":
            node.runtime.disk.faults.apply({"full": True})
            await asyncio.sleep(rng.random() * 4)
            node.runtime.disk.faults.heal()
        elif kind == "disk":
            node.runtime.disk.faults.apply({"eio_at": rng.randrange(1, 6)})
            await asyncio.sleep(rng.random() * 3)
            node.runtime.disk.faults.heal()
        else:
            leader = rng.choice(["n1", "n2", "n3"])
            world.crash(leader)
            await asyncio.sleep(rng.random() * 3)
            world.restart(leader)


async def settled(chunks, store, truth):
    """Peace, then: healed, and every sealed file is what was written."""
    await chunks.until(lambda live: len(live) == len(chunks.names), store)
    await chunks.healed(store)
    for path, data in truth.items():
        assert await store.read(path) == data, f"{path} is not what was sealed"


def story(seed, rounds):
    """Writers write, everything breaks, one thing at a time; returns what was tried."""

    async def scenario(chunks):
        rng = random.Random(seed)
        store = await chunks.client()
        faults = Faults(chunks, rng)
        truth: dict[str, bytes] = {}
        outcomes = {"sealed": 0, "refused": 0, "removed": 0}
        over = False

        async def write():
            number = 0
            while not over:
                number += 1
                path = f"f{number % 8}"
                data = rng.randbytes(rng.choice([100, 64 * KIB, 200 * KIB, 300 * KIB]))
                before = truth.pop(path, None)
                try:
                    await store.put(path, data)
                    truth[path] = data
                    outcomes["sealed"] += 1
                except StoreError:
                    outcomes["refused"] += 1
                    found = None
                    for _ in range(100):
                        try:
                            found = await store.read(path)
                            break
                        except FileNotFoundError:
                            break
                        except StoreError:
                            await asyncio.sleep(1)
                    assert found in (before, data, None if before is None else before)
                    if found is not None:
                        truth[path] = found
                await asyncio.sleep(rng.random())

        writing = asyncio.ensure_future(write())
        for _ in range(rounds):
            await faults.one()
            await asyncio.sleep(3 + rng.random() * 3)  # until it is whole again, or nearly
            await chunks.healed(store)
        over = True
        await writing
        await settled(chunks, store, truth)
        assert outcomes["sealed"] > rounds, f"too little was written to tell: {outcomes}"
        return outcomes, faults.counts

    return scenario


@pytest.mark.parametrize("seed", range(1))
def test_what_was_sealed_reads_back(seed):
    run(story(seed, rounds=5), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
def test_what_was_sealed_reads_back_for_long(seed):
    run(story(seed, rounds=10), seed=seed)
