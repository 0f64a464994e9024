"""Sockets of the three presets in a simulated world, one node each."""

from __future__ import annotations

import asyncio
import functools
import random

from netstack.presets.bytestream import StreamSocket
from netstack.presets.datagrams import DatagramSocket
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import EPOCH, World
from security.identity import Authority

DELAY_S = 0.010
SERVER = ("127.0.0.1", 7000)

_entropy = random.Random("presets").randbytes
_authority = Authority.create("test", now=EPOCH, entropy=_entropy)


class Net:
    """A world and the sockets in it, by the names of their nodes."""

    def __init__(self, seed=3, **link):
        self.world = World(seed)
        self.world.network.base_policy = LinkPolicy(**{"delay_s": DELAY_S} | link)
        self.runtimes = {}
        self.sockets = {}

    async def node(self, name, make, address=("127.0.0.1", 0)):
        """What `make(runtime)` gives, bound to `address`, on a node of its own."""
        made = asyncio.get_running_loop().create_future()

        async def start(runtime):
            self.runtimes[name] = runtime
            socket = make(runtime)
            await (socket.bind if isinstance(socket, DatagramSocket) else socket.start)(address)
            made.set_result(socket)

        self.world.add_node(name, start)
        self.world.restart(name)
        self.sockets[name] = await made
        return self.sockets[name]

    async def datagrams(self, name, address=("127.0.0.1", 0), service="test"):
        return await self.node(
            name,
            lambda runtime: DatagramSocket(runtime, who(name, service), service="test"),
            address,
        )

    async def streams(self, name, address=("127.0.0.1", 0), service="test", **options):
        return await self.node(
            name,
            lambda runtime: StreamSocket(runtime, who(name, service), service="test", **options),
            address,
        )

    async def pair(self, **options):
        """Two sockets, and the two ends of one stream between them."""
        server = await self.streams("server", SERVER, backlog=4, **options)
        client = await self.streams("client", **options)
        accepting = asyncio.ensure_future(server.accept())
        here = await client.connect(SERVER)
        return here, await accepting


@functools.cache
def who(name, service):
    """Its identity: the same in its next life."""
    return _authority.issue(name, service, now=EPOCH, entropy=_entropy)


def run(scenario, **link):
    net = Net(**link)

    async def within_a_minute():
        async with asyncio.timeout(60):
            await scenario(net)

    try:
        net.world.run(within_a_minute())
    finally:
        net.world.close()


async def read_all(stream):
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)
