"""Services and callers in a simulated world, where time is exact and datagrams can be counted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from netstack.rpc.client import RpcClient
from netstack.rpc.node import RpcNode
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import Runtime
from netstack.runtime.simulation.world import EPOCH, World
from security.identity import Authority

SERVER = ("127.0.0.1", 7000)
DELAY_S = 0.010  # one way, on every link

_entropy = random.Random("keys").randbytes
_authority = Authority.create("test", now=EPOCH, entropy=_entropy)


def identity(name: str, service: str):
    return _authority.issue(name, service, now=EPOCH, entropy=_entropy)


class Town:
    """A world with one server, offering what `offer(service)` adds, and callers at will."""

    def __init__(self, offer: Callable[[Any], None], **limits: int) -> None:
        self.world = World(seed=1)
        self.world.network.base_policy = LinkPolicy(delay_s=DELAY_S)
        self.offer = offer
        self.limits = limits
        self.server: RpcNode = None  # of its present life
        self.callers: dict[str, RpcNode] = {}

    async def _serve(self, runtime: Runtime) -> None:
        self.server = RpcNode(runtime, identity("server", "echo"), service="echo")
        for name, value in self.limits.items():
            setattr(self.server.service, name, value)
        self.offer(self.server.service)
        await self.server.start(SERVER)

    def run(self, scenario: Callable[[Town], Any]) -> Any:
        """`await scenario(town)` in virtual time, the server up."""
        self.world.add_node("server", self._serve)
        self.world.restart("server")
        try:
            return self.world.run(scenario(self))
        finally:
            self.world.close()

    async def caller(self, name: str = "caller", service: str = "client") -> RpcClient:
        """A client of the server, connected, on a node of its own."""
        return (await self.node(name, service)).client(SERVER, "echo", "server")

    async def node(self, name: str, service: str) -> RpcNode:
        made: asyncio.Future[RpcNode] = asyncio.get_running_loop().create_future()

        async def start(runtime: Runtime) -> None:
            node = RpcNode(runtime, identity(name, service), service=service)
            await node.start(("127.0.0.1", 0))
            made.set_result(node)

        self.world.add_node(name, start)
        self.world.restart(name)
        node = self.callers[name] = await made
        return node

    def packets(self) -> dict[str, int]:
        """Packets that each side has sent on its connections."""
        nodes = {"server": self.server, **self.callers}
        return {
            name: sum(peer.connection.sent_packets for peer in node.host._peers.values())
            for name, node in nodes.items()
        }

    @property
    def now(self) -> float:
        return self.world.now
