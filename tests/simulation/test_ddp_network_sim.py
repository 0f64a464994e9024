"""The fabric over netstack in virtual time: bad lines, silence, and epochs that are over."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import numpy as np
import pytest

from ddp import execution as execution_module
from ddp import network as network_module
from ddp import verifiable
from ddp.call import Call
from ddp.card import Card
from ddp.errors import Fenced, RankLate, RankLost
from ddp.frames import Type
from ddp.network import STREAM_BYTES, NetworkFabric
from ddp.schedules.catalogue import ALLREDUCE, schedule_of
from ddp.switchboard import Switchboard, transport_config
from netstack.rpc.node import RpcNode
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import EPOCH, World
from security.identity import Authority

_entropy = random.Random("ranks").randbytes
_authority = Authority.create("test", now=EPOCH, entropy=_entropy)
IDENTITIES = {
    f"r{i}": _authority.issue(f"r{i}", "ddp", now=EPOCH, entropy=_entropy) for i in range(6)
}


class Ranks:
    """Nodes of a world, a rank each."""

    def __init__(self, size, seed, config=None, **policy):
        self.size = size
        self.config = config or transport_config()
        self.world = World(seed=seed)
        self.world.network.base_policy = LinkPolicy(**policy)
        # Of another host each, so that deaths are noticed by silence and not by the kernel.
        self.cards = [Card(f"r{i}", f"host{i}", 1, ("127.0.0.1", 7100 + i)) for i in range(size)]
        self.boards = {}
        self.all_here = asyncio.Event()
        for rank in range(size):
            self.world.add_node(f"r{rank}", self.starter(rank))

    def starter(self, rank):
        async def start(runtime):
            node = RpcNode(runtime, IDENTITIES[f"r{rank}"], service="ddp", config=self.config)
            await node.start(self.cards[rank].address)
            self.boards[rank] = Switchboard(node)
            if len(self.boards) == self.size:
                self.all_here.set()

        return start

    def on(self, rank, work):
        """Run a coroutine as part of that node; a future of its outcome."""
        future = asyncio.get_running_loop().create_future()

        async def run():
            try:
                found = await work
            except Exception as error:
                found = error
            if not future.done():
                future.set_result(found)

        self.boards[rank].node.runtime.spawn(run(), f"test {rank}")
        return future

    async def begin(self):
        for rank in range(self.size):
            self.world.restart(f"r{rank}")
        await self.all_here.wait()

    async def open(self, epoch=1, ranks=None, cards=None):
        which = range(self.size) if ranks is None else ranks
        cards = cards or self.cards
        opening = [
            self.on(r, NetworkFabric.open(self.boards[r], cards, i, epoch))
            for i, r in enumerate(which)
        ]
        return await asyncio.gather(*opening)

    async def call(self, fabric, algorithm, vector, timeout_s=20.0):
        call = Call("allreduce", algorithm, "sum", "float32", len(vector))
        ended = asyncio.get_running_loop().create_future()
        work = fabric.call(call, vector, timeout_s)
        work.then(lambda done: ended.done() or ended.set_result(done.error))
        return await ended

    def run(self, scenario):
        try:
            return self.world.run(scenario)
        finally:
            self.world.close()


def sum_over_a_bad_line(algorithm, seed, n, size=3):
    """Exact at every rank."""
    ranks = Ranks(size, seed, delay_s=0.002, jitter_s=0.004, loss=0.1, duplicate=0.05, reorder=0.1)

    async def scenario():
        await ranks.begin()
        fabrics = await ranks.open()
        vectors = [verifiable.inputs("float32", "sum", n, rank, size) for rank in range(size)]
        calls = [ranks.on(r, ranks.call(fabrics[r], algorithm, vectors[r])) for r in range(size)]
        assert await asyncio.gather(*calls) == [None] * size
        contributors = schedule_of("allreduce", algorithm, size).contributors
        wanted = verifiable.expected("float32", "sum", n, contributors, size)
        for vector in vectors:
            assert verifiable.wrong(vector, wanted) == 0

    ranks.run(scenario())
    assert ranks.world.network.dropped, "the line was good, so this tested nothing"


@pytest.mark.parametrize("algorithm", ALLREDUCE)
@pytest.mark.parametrize("seed", [1, 2])
def test_sums_are_exact_over_a_line_that_loses_duplicates_and_reorders(algorithm, seed):
    sum_over_a_bad_line(algorithm, seed, 70_001)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALLREDUCE)
@pytest.mark.parametrize(("size", "n"), [(2, 300_001), (4, 70_001), (5, 1_009)])
def test_so_they_are_under_many_seeds(algorithm, size, n):
    for seed in range(10):
        sum_over_a_bad_line(algorithm, seed, n, size)


@pytest.mark.parametrize("hosts", [("a", "b", "a", "b"), ("a", "b", "b", "a", "a", "b")])
def test_hierarchical_is_fitted_to_who_lives_where(hosts):
    """Between two hosts the vector goes once each way, however many ranks they have."""
    size, n = len(hosts), 60_000
    ranks = Ranks(size, 4, delay_s=0.002)
    ranks.cards = [
        replace(card, host=f"host {host}") for card, host in zip(ranks.cards, hosts, strict=True)
    ]
    crossed = []

    def counting(here, there, push):
        def counted(frame):
            if hosts[here] != hosts[there]:
                crossed.append(len(frame.payload) if frame.type is Type.DATA else 0)
            push(frame)

        return counted

    async def scenario():
        await ranks.begin()
        fabrics = await ranks.open()
        for here, fabric in enumerate(fabrics):
            for there, line in fabric._lines.items():
                line.push = counting(here, there, line.push)
        vectors = [verifiable.inputs("float32", "sum", n, rank, size) for rank in range(size)]
        calls = [
            ranks.on(r, ranks.call(fabrics[r], "hierarchical", vectors[r])) for r in range(size)
        ]
        assert await asyncio.gather(*calls) == [None] * size
        wanted = verifiable.expected("float32", "sum", n, range(size), size)
        assert all(verifiable.wrong(vector, wanted) == 0 for vector in vectors)
        assert sum(crossed) == 2 * 4 * n

    ranks.run(scenario())


@pytest.mark.parametrize("room", [STREAM_BYTES, 1 << 17])
def test_who_gives_up_may_write_into_his_vector_while_others_still_get_the_sum(room, monkeypatch):
    """His part is done and has not arrived: what he lent is copied first, wherever it waits."""
    monkeypatch.setattr(network_module, "STREAM_BYTES", room)
    monkeypatch.setattr(execution_module, "SEGMENT_BYTES", 1 << 15)
    config = replace(transport_config(), stream_buffer=2 * room)
    ranks = Ranks(2, 3, config, delay_s=0.02, loss=0.02)
    size, n = 2, 100_001

    async def scenario():
        await ranks.begin()
        fabrics = await ranks.open()
        vectors = [verifiable.inputs("float32", "sum", n, rank, size) for rank in range(size)]
        calls = [
            ranks.on(r, ranks.call(fabrics[r], "parameter-server", vectors[r])) for r in range(size)
        ]
        engine = fabrics[0].engine
        while not any(operation.part_done for operation in engine.open.values()):
            assert not calls[0].done(), calls[0]
            await asyncio.sleep(0.001)
        waits = sum(len(frame.payload) for frame in fabrics[0]._leaving[1])
        assert fabrics[0]._lines[1].stream.buffered > n, "all has arrived: this tests nothing"
        assert (waits > n) == (room < STREAM_BYTES), "it waits elsewhere"
        engine.expire(1e9)
        assert isinstance(await calls[0], RankLate)
        vectors[0][...] = np.nan
        assert await calls[1] is None
        wanted = verifiable.expected("float32", "sum", n, range(size), size)
        assert verifiable.wrong(vectors[1], wanted) == 0

    ranks.run(scenario())


def test_a_silent_rank_is_named_by_all_others_and_the_next_epoch_goes_on_without_it():
    ranks = Ranks(3, 5, delay_s=0.001)

    async def scenario():
        await ranks.begin()
        fabrics = await ranks.open()
        vectors = [np.ones(1000, np.float32) for _ in range(3)]
        ranks.world.pause("r2")
        calls = [ranks.on(r, ranks.call(fabrics[r], "ring", vectors[r])) for r in (0, 1)]
        for error in await asyncio.gather(*calls):
            assert isinstance(error, RankLost)
            assert "rank 2 is gone" in str(error)
        for rank in (0, 1):
            fabrics[rank].close()
        left = await ranks.open(epoch=2, ranks=[0, 1], cards=ranks.cards[:2])
        vectors = [np.ones(1000, np.float32) for _ in range(2)]
        calls = [ranks.on(r, ranks.call(left[r], "ring", vectors[r])) for r in (0, 1)]
        assert await asyncio.gather(*calls) == [None, None]
        # It goes on, believes in its epoch, and is told that this is over.
        ranks.world.resume("r2")
        zombie = ranks.on(2, ranks.call(fabrics[2], "ring", np.ones(1000, np.float32)))
        assert isinstance(await zombie, RankLost | Fenced)
        assert (vectors[0] == 2).all()

    ranks.run(scenario())


def test_who_leaves_in_good_order_is_not_given_up_for_dead():
    """A member that has heard of the next epoch closes the group of this one, and its connection
    ends: whoever has not heard yet must not take it off the list of the living."""
    ranks = Ranks(3, 6, delay_s=0.001)
    told = []

    async def scenario():
        await ranks.begin()
        opening = [
            ranks.on(
                r,
                NetworkFabric.open(
                    ranks.boards[r], ranks.cards, r, 1, on_lost=lambda *lost: told.append(lost)
                ),
            )
            for r in range(3)
        ]
        fabrics = await asyncio.gather(*opening)
        fabrics[0].close()  # it has dialled both others
        await asyncio.sleep(5.0)
        assert told == []
        assert all("has left the group" in str(fabrics[r].engine.broken) for r in (1, 2))
        ranks.world.pause("r2")
        await asyncio.sleep(5.0)
        assert [rank for rank, _ in told] == [2]

    ranks.run(scenario())


def test_who_rings_with_an_old_epoch_is_fenced():
    ranks = Ranks(2, 7, delay_s=0.001)

    async def scenario():
        await ranks.begin()
        ranks.on(1, NetworkFabric.open(ranks.boards[1], ranks.cards, 1, 2))
        await asyncio.sleep(0.1)
        late = ranks.on(0, NetworkFabric.open(ranks.boards[0], ranks.cards, 0, 1))
        error = await late
        assert isinstance(error, Fenced)
        assert "epoch 1 is over, epoch 2 has begun" in str(error)

    ranks.run(scenario())


def test_ranks_that_are_not_there_are_named():
    ranks = Ranks(3, 9, delay_s=0.001)

    async def scenario():
        await ranks.begin()
        alone = ranks.on(0, NetworkFabric.open(ranks.boards[0], ranks.cards, 0, 1, timeout_s=1.0))
        error = await alone
        assert isinstance(error, RankLost)
        assert str(error) == "ranks 1, 2 were not found in 1.0 s"

    ranks.run(scenario())
