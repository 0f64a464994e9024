"""Nodes that talk for hours over a network that gets everything wrong, and what they weigh.

    a ─┐
    b ─┼── server      killed and restarted, as a and b are; each life dials anew
    c ─┘
    left ── right      never killed: one connection, however long it takes

The weather changes every few seconds (WEATHERS); beside it edges are cut, routers forget, nodes are
killed. Who talks sends bytes and reads them back: what comes must be what went, from the first byte
on, in whatever way a connection ends.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import Counter, deque

from host_kit import echo, identity

from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import World
from netstack.transport.config import TransportConfig
from netstack.transport.connection import Connection
from netstack.transport.errors import TransportError
from netstack.transport.host import Host

SERVER, RIGHT = ("127.0.0.1", 7000), ("127.0.0.1", 7001)
CLIENTS = ("a", "b", "c")

CALM = LinkPolicy(delay_s=0.005)
WEATHERS = {
    "calm": CALM,
    "loss": LinkPolicy(delay_s=0.010, loss=0.05),
    "bursts": LinkPolicy(delay_s=0.010, burst_begin=0.02, burst_end=0.3),
    "copies": LinkPolicy(delay_s=0.010, duplicate=0.3),
    "disorder": LinkPolicy(delay_s=0.010, jitter_s=0.005, reorder=0.2, reorder_s=0.03),
    "damage": LinkPolicy(delay_s=0.010, corrupt=0.05),
    "far": LinkPolicy(delay_s=0.300),
    "narrow": LinkPolicy(delay_s=0.010, rate_bytes_s=200_000, queue_bytes=20_000),
    "marks": LinkPolicy(
        delay_s=0.010, rate_bytes_s=200_000, queue_bytes=40_000, mark_bytes=8_000
    ),
    "all": LinkPolicy(
        delay_s=0.020, jitter_s=0.010, loss=0.01, burst_begin=0.01, burst_end=0.5,
        duplicate=0.05, reorder=0.05, reorder_s=0.02, corrupt=0.02,
    ),
}  # fmt: skip

# A question that has no answer after so long, with nothing wrong for half of it, is stuck.
STUCK_S = 240.0


class Soak:
    """The world, and the record of what went well in it."""

    def __init__(self, seed):
        self.world = World(seed)
        self.world.network.base_policy = CALM
        self.dice = random.Random(f"soak {seed}")
        self.hosts = {}
        self.exact = 0  # bytes that came back as they went
        self.answers = Counter()
        self.ends = Counter()  # how connections and streams ended, by the error's name
        self.did = Counter()
        self.quiet = False
        self.peak = 0  # bytes that all hosts held, whenever they were looked at
        self.counters = Counter()  # of hosts that are gone
        calm = TransportConfig(stream_window=65_536, connection_window=200_000, max_streams=20)
        patient = TransportConfig(idle_timeout_s=90.0, max_streams=20, congestion="cubic")
        self._add("server", SERVER, calm)
        self._add("right", RIGHT, patient)
        for name in CLIENTS:
            self._add(name, ("127.0.0.1", 0), calm, SERVER)
        self._add("left", ("127.0.0.1", 0), patient, RIGHT)

    def _add(self, name, address, config, talks_to=None):
        who = identity(name)

        async def start(runtime):
            host = Host(runtime, who, service="echo", config=config, on_peer=echo)
            await host.start(address)
            self.hosts[name] = host
            if talks_to is not None:
                dice = random.Random(f"{name} {self.world.now}")
                runtime.spawn(self._talk(name, host, talks_to, dice), "talk")

        self.world.add_node(name, start)
        self.world.restart(name)

    # -- those who talk

    async def _talk(self, name, host, to, dice):
        peer = None
        while True:
            await asyncio.sleep(dice.uniform(0.05, 0.4))
            if self.quiet:
                continue
            try:
                if peer is None or peer.closed:
                    peer = await host.connect(to, service="echo", timeout_s=5.0)
                    self.did[name, "dial"] += 1
                await self._asks(name, peer, dice)
                if name != "left" and dice.random() < 0.02:
                    await peer.close()
            except TransportError as error:
                self.ends[type(error).__name__] += 1

    async def _asks(self, name, peer, dice):
        """One to three questions at once, and now and then one that is given up."""
        several = dice.choice((1, 1, 3))
        if dice.random() < 0.1:
            stream = peer.open_stream()
            stream.push(dice.randbytes(5_000))
            await asyncio.sleep(0.01)
            stream.reset(9)
            peer.send_datagram(b"and this may be lost")
        asking = [self._ask(name, peer, dice) for _ in range(several)]
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _ask(self, name, peer, dice):
        data, got = dice.randbytes(int(dice.paretovariate(0.7) * 300) % 60_000), bytearray()
        stream = peer.open_stream()
        try:
            async with asyncio.timeout(STUCK_S):
                await stream.write(data, fin=True)
                while part := await stream.read():
                    got += part
        finally:
            assert data.startswith(got), f"{name}: not what was sent, from byte {len(got)} on"
        assert len(got) == len(data), f"{name}: {len(got)} of {len(data)} bytes, and then an end"
        self.exact += len(data)
        self.answers[name] += 1

    # -- what befalls them

    async def storm(self, seconds):
        """Weather upon weather, and something else in between."""
        until = self.world.now + seconds
        while self.world.now < until:
            weather = self.dice.choice(list(WEATHERS))
            self.did["weather", weather] += 1
            self.world.network.base_policy = WEATHERS[weather]
            await asyncio.sleep(self.dice.uniform(2, 8))
            befalls = self.dice.choice((self._cut, self._rebind, self._kill, self._nothing))
            self.did[befalls.__name__] += 1
            await befalls()
            self.peak = max(self.peak, sum(weight(host)[1] for host in self.hosts.values()))
            self.world.lines.clear()  # the history so far: it is the world's that grows

    async def _nothing(self):
        await asyncio.sleep(1)

    async def _cut(self):
        """One way or both, for less than it takes to be given up, or for longer."""
        ends = self.dice.choice((("left", "right"), (self.dice.choice(CLIENTS), "server")))
        for one, other in (ends, ends[::-1])[: self.dice.choice((1, 2))]:
            self.world.network.cut(one, other)
        await asyncio.sleep(self.dice.choice((0.5, 3.0, 10.0, 25.0)))
        self.world.network.heal()

    async def _rebind(self):
        """A router forgets: the same process speaks from another port, or another address."""
        name = self.dice.choice((*CLIENTS, "left"))
        host, address = self.hosts[name], f"127.0.0.{self.dice.randint(1, 9)}"

        async def rebind():
            host._endpoint.close()
            host._endpoint = await host._runtime.bind((address, 0))
            host._endpoint.set_receiver(host._receive)

        context = self.world.nodes[name].life.context
        await asyncio.get_running_loop().create_task(rebind(), context=context)

    async def _kill(self):
        """kill -9, and again a life."""
        name = self.dice.choice((*CLIENTS, "server", "server"))
        gone = self.hosts[name]
        self.world.crash(name)
        self.counters += gone.counters
        for memory in (gone._peers, gone._by_initial, gone._dirty):
            memory.clear()  # the process's: the world keeps what it left half done
        await asyncio.sleep(self.dice.choice((0.0, 1.0, 20.0)))
        self.world.restart(name)

    async def rest(self, seconds=40.0):
        """Nobody speaks, nothing is wrong: until all that was under way has ended."""
        self.quiet = True
        self.world.network.heal()
        self.world.network.base_policy = CALM
        await asyncio.sleep(STUCK_S + seconds)
        self.quiet = False

    def run(self, scenario):
        try:
            return self.world.run(scenario)
        finally:
            self.world.close()

    def faults(self):
        """How often each struck: on the wire, and as the hosts have seen it."""
        struck = Counter()
        for shaper in self.world.network._shapers.values():
            struck.update(shaper.counts)
        struck += self.counters
        for host in self.hosts.values():
            struck += host.counters
        return struck

    # -- what they weigh

    def tables(self):
        """How much there is of everything, by its name."""
        hosts, network, loop = self.hosts.values(), self.world.network, self.world.loop
        connections = [peer.connection for host in hosts for peer in host._peers.values()]
        gc.collect()
        alive = sum(type(o) is Connection for o in gc.get_objects())
        return {
            "objects": sum(weight(host)[0] for host in hosts),
            "bytes": sum(weight(host)[1] for host in hosts),
            "connections": len(connections),
            "connections of nobody": alive - len(connections),
            "half open": sum(host._half_open + len(host._by_initial) for host in hosts),
            "known": sum(len(host._known) for host in hosts),
            "streams": sum(len(c.streams) for c in connections),
            # A sign of life may have left just now.
            "in flight": sum(
                self.world.now - packet.sent_at > 1.0
                for connection in connections
                for packet in connection.recovery.in_flight.values()
            ),
            "sockets": len(network._sockets),
            "timers": len(loop._scheduled),
        }


def weight(host):
    """(objects, bytes) that a host holds for its connections."""
    seen, objects, size = set(), 0, 0
    waiting = [host._peers, host._by_initial, host._known, host._dirty]
    while waiting:
        held = waiting.pop()
        if id(held) in seen or held is host:
            continue
        seen.add(id(held))
        objects, size = objects + 1, size + sys.getsizeof(held)
        if isinstance(held, dict):
            waiting += [*held.keys(), *held.values()]
        elif isinstance(held, (list, tuple, set, deque)):
            waiting += held
        elif type(held).__module__.startswith(("netstack.transport", "security.")):
            waiting += vars(held).values() if hasattr(held, "__dict__") else ()
            slots = [s for kind in type(held).__mro__ for s in getattr(kind, "__slots__", ())]
            waiting += [getattr(held, slot) for slot in slots if hasattr(held, slot)]
    return objects, size
