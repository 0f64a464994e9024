"""Small nodes for simulated worlds: those that only listen, and some that do everything."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable
from typing import Any

from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import Runtime
from netstack.runtime.simulation.world import World

PORTS = {"n1": 7001, "n2": 7002, "n3": 7003}


def address(name: str) -> tuple[str, int]:
    return "10.0.0.1", PORTS[name]


class Radio:
    """Nodes that hear what is sent to them; `say` sends as the node's own process would."""

    def __init__(self) -> None:
        self.heard: dict[str, list[bytes]] = {}
        self.endpoints: dict[str, Any] = {}

    def start(self, name: str) -> Callable[[Runtime], Any]:
        async def start(runtime: Runtime) -> None:
            heard = self.heard.setdefault(name, [])
            endpoint = self.endpoints[name] = await runtime.bind(address(name))
            endpoint.set_receiver(lambda datagrams, *_: heard.extend(datagrams))

        return start

    def say(self, source: str, destination: str, *datagrams: bytes) -> None:
        self.endpoints[source].send(datagrams, address(destination))


def radio_world(seed: int = 1, names: str = "n1 n2 n3") -> tuple[World, Radio]:
    """Running nodes that do nothing but listen."""
    world, radio = World(seed), Radio()
    for name in names.split():
        world.add_node(name, radio.start(name))
        world.restart(name)
    passes(world, 0.001)
    return world, radio


def passes(world: World, seconds: float) -> None:
    """So much virtual time."""
    world.run(asyncio.sleep(seconds))


def busy(seed: int) -> str:
    """The log of a world in which everything happens: gossip, disks, crashes, bad links."""
    world = World(seed)
    peers = list(PORTS)

    async def start(runtime: Runtime) -> None:
        endpoint = await runtime.bind(address(runtime.node))
        disk, file = runtime.executor("disk"), runtime.disk.open("log")
        runtime.events.emit("recovered", bytes=file.size, crc=file.read_at(0, 99).hex())

        def heard(datagrams: Any, source: Any, mark: int) -> None:
            runtime.events.emit("heard", source=source[1], text=datagrams[0].hex())

        def write() -> None:
            file.append(runtime.entropy(4))
            file.sync()

        endpoint.set_receiver(heard)
        for number in range(40):
            await asyncio.sleep(runtime.rng.random() * 0.1)
            for peer in peers:
                endpoint.send([b"%d" % number], address(peer))
            disk.submit(write, lambda *_: runtime.events.emit("wrote"))

    async def scenario() -> None:
        for name in peers:
            world.add_node(name, start)
            world.restart(name)
        world.network.base_policy = LinkPolicy(
            loss=0.1, delay_s=0.01, jitter_s=0.01, duplicate=0.1, reorder=0.1, corrupt=0.05
        )
        for _ in range(20):
            await asyncio.sleep(0.1)
            name = world.rng.choice(peers)
            what = world.rng.choice(["crash", "pause", "cut", "heal"])
            if not world.nodes[name].running:
                world.restart(name)
            elif what == "crash":
                world.crash(name)
            elif what == "pause":
                world.pause(name)
                world.loop.call_later(0.15, world.resume, name)
            elif what == "cut":
                world.network.cut(name, world.rng.choice(peers))
            else:
                world.heal()

    world.run(scenario())
    log = world.log
    world.close()
    return log


if __name__ == "__main__":
    print(hashlib.sha256(busy(int(sys.argv[1])).encode()).hexdigest())
