"""A simulated ring of whole daemons, and a client of it on a node of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from dht.chord import oracle
from dht.chord.node import MEMBER, ChordNode
from dht.client import DhtClient
from dht.server import DhtService
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.simulation.world import EPOCH, World
from security.identity import Authority

SETTINGS = {"successors": 4, "vnodes": 2, "timeout_ms": 200, "stabilise_ms": [50, 400]}
PATIENCE_S = 60.0


class Judge:
    """Zave's invariant is inductive: a step of the protocol that begins in it ends in it.

    So each step is judged by itself. What breaks the invariant between two steps is the
    environment: deaths beyond her rule, a cut, a pause, which looks like a death and is none. Until
    it holds again steps are not judged, and do not count.
    """

    def __init__(self, ring: Callable[[], oracle.Ring], successors: int) -> None:
        self.steps = 0
        self.lawful: Callable[[], bool] = lambda: True
        self._ring = ring
        self._successors = successors
        self._inside = False

    def _broken(self) -> list[str]:
        return oracle.violations(self._ring(), self._successors)

    @contextlib.contextmanager
    def step(self, node: ChordNode) -> Iterator[None]:
        if self._inside or not self.lawful() or self._broken():
            yield
            return
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
        self.steps += 1
        found = self._broken()
        assert not found, f"a step of {node!r} broke the invariant: {found}"

    def judged(self, kind: type[ChordNode]) -> type[ChordNode]:
        """The same nodes, each change of their pointers a step."""
        judge = self

        class Judged(kind):
            def _become(self, *args):
                with judge.step(self):
                    super()._become(*args)

            def _set(self, *args):
                with judge.step(self):
                    return super()._set(*args)

        return Judged


class SimulatedRing:
    """Peers d1 … dN; `late` ones wait for `restart`."""

    def __init__(
        self,
        world: World,
        count: int = 5,
        *,
        late: int = 0,
        settings: dict | None = None,
        kind: type[DhtService] = DhtService,
    ) -> None:
        self.world = world
        self.kind = kind
        self.services: dict[str, DhtService] = {}
        self.names = [f"d{i}" for i in range(1, count + late + 1)]
        nodes = tuple(
            NodeConfig(name, "dht", "127.0.0.1", 7500 + i) for i, name in enumerate(self.names)
        )
        self.table = {**SETTINGS, **(settings or {})}
        self.judge = Judge(self.ring, self.table["successors"])
        self.judge.lawful = self._whole
        table = {"dht": self.table}
        self.config = ClusterConfig("sim", "sim", "AESGCM", 7400, nodes, table, Path())
        entropy = random.Random("ring").randbytes
        authority = Authority.create("sim", now=EPOCH, entropy=entropy)
        roles = {**dict.fromkeys(self.names, "dht"), "client": "client", "other": "client"}
        self.identities = {
            name: authority.issue(name, role, now=EPOCH, entropy=entropy)
            for name, role in roles.items()
        }
        for name in self.names:
            world.add_node(name, self._start)
        for name in self.names[:count]:
            world.restart(name)

    async def _start(self, runtime):
        service = self.services[runtime.node] = self.kind()
        service.core = self.judge.judged(service.core)
        await service.start(runtime, self.identities[runtime.node], self.config)
        return service

    async def client(self, name: str = "client") -> DhtClient:
        made = asyncio.get_running_loop().create_future()

        async def start(runtime) -> None:
            node = RpcNode(runtime, self.identities[name], service="client")
            await node.start(("127.0.0.1", 0))
            made.set_result(DhtClient(node, {n.name: n.address for n in self.config.nodes}))

        self.world.add_node(name, start)
        self.world.restart(name)
        return await made

    # -- seen from above

    @property
    def running(self) -> list[str]:
        return [name for name in self.names if self.world.nodes[name].running]

    def members(self):
        return [
            member
            for name in self.running
            if self.world.nodes[name].service is not None
            for member in self.services[name].members
        ]

    def ring(self) -> oracle.Ring:
        inside = [m.core for m in self.members() if m.core.state == MEMBER]
        return {core.me: oracle.View(core.pred, tuple(core.succ)) for core in inside}

    def _whole(self) -> bool:
        """Who is silent is dead: nobody is paused or cut off."""
        paused = any(self.world.nodes[name].life.held is not None for name in self.running)
        return not paused and not self.world.network._cut

    def flaws(self) -> list[str]:
        expected = len(self.running) * self.table["vnodes"]
        ring = self.ring()
        missing = [f"{expected - len(ring)} are no members"] if len(ring) < expected else []
        return missing + oracle.flaws(ring, self.table["successors"])

    def unsettled(self) -> list[str]:
        return [
            repr(m)
            for name in self.running
            for m in self.services[name].members
            if not self.services[name].keeper.spans[m].settled(m.core)
            or self.services[name].repair.moving
        ]

    async def ideal(self, *, settled: bool = True) -> float:
        """Wait until the ring is as it should be; returns how long that took."""
        began = self.world.now
        while (found := self.flaws()) or (settled and self.unsettled()):
            if self.world.now - began > PATIENCE_S:
                raise AssertionError(f"not ideal after {PATIENCE_S} s: {found or self.unsettled()}")
            await asyncio.sleep(0.05)
        return self.world.now - began

    def holders(self, key: bytes) -> list[str]:
        """Processes that keep a live copy of the key."""
        wall = EPOCH + self.world.now
        found = []
        for name in self.running:
            record = self.services[name].keeper.store.get(key)
            if record is not None and record.alive(wall):
                found.append(name)
        return found


def run(scenario, *, seed: int = 5, **options):
    """Run `scenario(ring)` in a world of its own."""
    world = World(seed=seed)

    async def begin():
        return await scenario(SimulatedRing(world, **options))

    try:
        return world.run(begin())
    finally:
        world.close()
