"""Workers of graphs in virtual time: they die, pause and are cut off, and the answer is right."""

from __future__ import annotations

import asyncio
import random
from operator import add
from pathlib import Path

import pytest

from mapreduce.graph.children import InlineChild
from mapreduce.graph.client import GraphClient
from mapreduce.graph.errors import NoWorkers, TaskFailed
from mapreduce.graph.graphs import Graph, evaluate
from mapreduce.graph.worker import GraphService
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.simulation.world import EPOCH, World
from security.identity import Authority


class Workers:
    """Graph workers g1, g2, … in a world, and a client."""

    def __init__(self, world, count=3, **settings):
        self.world = world
        self.names = tuple(f"g{i}" for i in range(1, count + 1))
        nodes = tuple(
            NodeConfig(name, "graph", "127.0.0.1", 7600 + i) for i, name in enumerate(self.names)
        )
        tables = {"graph": settings} if settings else {}
        self.config = ClusterConfig("sim", "sim", "AESGCM", 7600, nodes, tables, Path())
        entropy = random.Random("graph").randbytes
        authority = Authority.create("sim", now=EPOCH, entropy=entropy)
        roles = {**dict.fromkeys(self.names, "graph"), "client": "client"}
        self.services = {}
        self._identities = {
            name: authority.issue(name, role, now=EPOCH, entropy=entropy)
            for name, role in roles.items()
        }
        for name in self.names:
            world.add_node(name, self._start)
            world.restart(name)

    async def _start(self, runtime):
        service = self.services[runtime.node] = GraphService(InlineChild)
        await service.start(runtime, self._identities[runtime.node], self.config)

    async def client(self):
        made = asyncio.get_running_loop().create_future()

        async def start(runtime):
            node = RpcNode(runtime, self._identities["client"], service="client")
            await node.start(("127.0.0.1", 0))
            client = GraphClient(node, {n.name: n.address for n in self.config.nodes})
            client.validate = True
            made.set_result(client)

        self.world.add_node("client", start)
        self.world.restart("client")
        return await made


def run(scenario, seed=3, **settings):
    world = World(seed=seed)

    async def begin():
        return await scenario(Workers(world, **settings))

    try:
        return world.run(begin())
    finally:
        world.close()


def collect(name, *values):
    return hash((name, values)) % 1_000_003


def layered(rng, layers=6, width=12):
    """A graph in layers, each task with two inputs from the layer above."""
    dsk = {f"0-{i}": (collect, i) for i in range(width)}
    for layer in range(1, layers):
        for i in range(width):
            above = [f"{layer - 1}-{rng.randrange(width)}" for _ in range(2)]
            dsk[f"{layer}-{i}"] = (collect, i, *above)
    dsk["end"] = (collect, -1, *(f"{layers - 1}-{i}" for i in range(width)))
    return dsk


def test_an_answer_comes_from_several_workers():
    async def scenario(workers):
        client = await workers.client()
        dsk = layered(random.Random(1))
        assert await client.get(dsk, "end") == evaluate(Graph.of(dsk), ["end"])[0]
        assert len(set(client.report.ran_on.values())) == 3
        assert client.report.recomputed == []
        await asyncio.sleep(1)
        assert not any(service._functions for service in workers.services.values())
        assert not any(len(service.values) for service in workers.services.values())

    run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_befalls_the_workers_the_answer_is_right(seed):
    async def scenario(workers):
        rng = random.Random(seed)
        client = await workers.client()
        dsk = layered(rng, layers=8, width=20)
        wanted = ["end", "3-1", "5-2"]
        asked = asyncio.ensure_future(client.get(dsk, wanted))
        world, harmed = workers.world, 0
        while not asked.done() and harmed < 12:
            await asyncio.sleep(0.01 + rng.random() / 20)
            name = rng.choice(workers.names)
            kind = rng.choice(["crash", "crash", "pause", "cut"])
            harmed += 1
            if kind == "crash":
                world.crash(name)
                await asyncio.sleep(rng.random() / 5)
                world.restart(name)
            elif kind == "pause":
                world.pause(name)
                await asyncio.sleep(rng.random() * 5)
                world.resume(name)
            else:
                world.network.partition([[name], [n for n in workers.names if n != name]])
                await asyncio.sleep(rng.random() * 4)
                world.network.heal()
        assert await asked == evaluate(Graph.of(dsk), wanted)
        assert harmed, "nothing happened meanwhile"

    run(scenario, seed)


def test_nobody_to_compute_is_said():
    async def scenario(workers):
        client = await workers.client()
        for name in workers.names:
            workers.world.crash(name)
        with pytest.raises(NoWorkers, match="g1, g2, g3"):
            await client.get({"a": (add, 1, 2)}, "a")

    run(scenario)


def test_a_function_that_raises_is_told_with_its_cause():
    async def scenario(workers):
        client = await workers.client()
        graph = Graph.of({"a": "no", "b": (int, "a"), "c": (add, "b", 1), "d": "c"})
        with pytest.raises(TaskFailed, match="d failed:\nin its step b\n"):
            await client.values(graph, ["d"])
        with pytest.raises(TaskFailed, match=r"b \(needed for d\) failed") as caught:
            await client.values(graph, ["d"], fusion=False)
        assert isinstance(caught.value.__cause__, ValueError)

    run(scenario)


def test_values_beyond_memory_are_spilled_and_still_right():
    async def scenario(workers):
        client = await workers.client()
        dsk = {f"x{i}": (bytes, [i] * 5000) for i in range(60)}
        dsk["all"] = (b"".join, [f"x{i}" for i in range(60)])
        assert await client.get(dsk, "all") == b"".join(bytes([i] * 5000) for i in range(60))
        assert sum(service.values.spilled_ever for service in workers.services.values()) > 10

    run(scenario, memory_bytes=20_000)


def test_a_caller_that_dies_leaves_nothing_behind():
    async def scenario(workers):
        client = await workers.client()
        dsk = layered(random.Random(2), layers=10, width=40)
        asked = asyncio.ensure_future(client.get(dsk, "end"))
        await asyncio.sleep(0.3)
        assert any(len(service.values) for service in workers.services.values())
        workers.world.crash("client")
        asked.cancel()
        await asyncio.sleep(30)
        for service in workers.services.values():
            assert (len(service.values), service._sessions, service._jobs) == (0, {}, {})

    run(scenario)
