"""Hosts in a simulated world: an echo server, callers at will, and a way to listen in."""

from __future__ import annotations

import asyncio
import random

from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import EPOCH, World
from netstack.transport.config import TransportConfig
from netstack.transport.host import Host
from netstack.transport.packet import INITIAL_XX, parse_initial
from security.identity import Authority

SERVER = ("127.0.0.1", 7000)
DELAY_S = 0.010
ROUND_TRIP = 2 * DELAY_S

# The least that begins an XX handshake: a key, and an empty payload (security/channel.py).
FIRST_MESSAGE = b"\x09" * 32 + b"\x91\xc4\x00"

_entropy = random.Random("hosts").randbytes
_authority = Authority.create("test", now=EPOCH, entropy=_entropy)


def identity(name):
    return _authority.issue(name, "echo", now=EPOCH, entropy=_entropy)


def echo(peer):
    def opened(stream):
        stream.receiver = lambda data, fin: stream.push(data, fin=fin)

    peer.on_stream = opened


class Net:
    """A world with an echo server and as many dialling hosts as asked for."""

    def __init__(self, **config):
        self.world = World(seed=3)
        self.world.network.base_policy = LinkPolicy(delay_s=DELAY_S)
        self.config = TransportConfig(**config)
        self.identities = {}
        self.hosts = {}
        self.peers_seen = []

    async def host(self, name, address=("127.0.0.1", 0), on_peer=None):
        """A node's socket; again under the same name is its next life."""
        started = asyncio.get_running_loop().create_future()

        async def start(runtime):
            mine = self.identities.setdefault(name, identity(name))
            host = Host(runtime, mine, service="echo", config=self.config, on_peer=on_peer)
            await host.start(address)
            self.hosts[name] = host
            if not started.done():
                started.set_result(host)

        if name not in self.world.nodes:
            self.world.add_node(name, start)
        else:
            self.world.nodes[name]._start = start
        self.world.restart(name)
        return await started

    async def server(self):
        def seen(peer):
            self.peers_seen.append(peer)
            echo(peer)

        return await self.host("server", SERVER, seen)

    def run(self, scenario):
        try:
            return self.world.run(scenario(self))
        finally:
            self.world.close()


def run(scenario, **config):
    return Net(**config).run(scenario)


def overhear(host, change=lambda data: data):
    """What arrives at `host` from now on; `change` may damage it (None: it is lost)."""
    heard = []

    def receive(datagrams, source, mark=0):
        heard.extend(datagrams)
        arrived = [changed for data in datagrams if (changed := change(data)) is not None]
        host._receive(arrived, source)

    host._endpoint.set_receiver(receive)
    return heard


def once(matches, change):
    """Apply `change` to the first datagram that `matches`."""
    done = []

    def maybe(data):
        if done or not matches(data):
            return data
        done.append(data)
        return change(data)

    return maybe


def of_kind(kind):
    return lambda data: data[0] == kind


def first_of_noise(data):
    """An INITIAL that shows its token: the first that is worth a handshake's state."""
    return data[0] == INITIAL_XX and parse_initial(data)[1] != b""


def damage(data):
    """One bit of the handshake's message is another one, wherever that message lies."""
    at = len(data) - 1
    if data[0] == INITIAL_XX:
        at = data.rindex(parse_initial(data)[2]) + 5
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def truncate(data):
    return data[:20]


def lose(data):
    return None


async def ask(peer, data):
    stream = peer.open_stream()
    await stream.write(data, fin=True)
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)
