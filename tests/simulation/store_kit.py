"""A simulated store: its nodes, and a client of it on a node of its own."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.simulation.world import EPOCH, World
from raftd.client import RaftClient
from raftd.server import RaftService
from security.identity import Authority

NAMES = ("n1", "n2", "n3")


class Store:
    """Three nodes that run, and the client of whoever asks first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.services: dict[str, RaftService] = {}
        nodes = tuple(NodeConfig(n, "raft", "127.0.0.1", 7400 + int(n[1:])) for n in NAMES)
        self.config = ClusterConfig("sim", "sim", "AESGCM", 7400, nodes, {}, Path())
        entropy = random.Random("store").randbytes
        authority = Authority.create("sim", now=EPOCH, entropy=entropy)
        roles = {**dict.fromkeys(NAMES, "raft"), "client": "client"}
        self._identities = {
            name: authority.issue(name, role, now=EPOCH, entropy=entropy)
            for name, role in roles.items()
        }
        for name in NAMES:
            world.add_node(name, self._start)
            world.restart(name)

    async def _start(self, runtime) -> None:
        service = self.services[runtime.node] = RaftService()
        await service.start(runtime, self._identities[runtime.node], self.config)

    async def client(self) -> RaftClient:
        """A client that has found the leader."""
        made = asyncio.get_running_loop().create_future()

        async def start(runtime) -> None:
            node = RpcNode(runtime, self._identities["client"], service="client")
            await node.start(("127.0.0.1", 0))
            made.set_result(RaftClient(node, {n.name: n.address for n in self.config.nodes}))

        self.world.add_node("client", start)
        self.world.restart("client")
        client = await made
        await client.leader()
        return client


def run(scenario):
    """Run `scenario(store)` in a world of its own."""
    world = World(seed=5)

    async def begin():
        return await scenario(Store(world))

    try:
        return world.run(begin())
    finally:
        world.close()
