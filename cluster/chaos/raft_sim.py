"""Our store in the simulation, as a campaign harms and asks it: the same daemons, virtual time.

What the supervisor does for live ones is done here in its place: a node that ends by itself is
started again, and given up after a few times; what is wrong with a machine outlives its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from cluster.chaos.catalogue import FAULTS, FILES, MEMBERS, PAUSE, PROCESS
from cluster.chaos.evidence import GONE, ended_over
from cluster.chaos.raft_client import RaftStore
from cluster.chaos.system import NoEffect, Refused, View
from cluster.errors import NotInTime
from netstack.rpc.node import RpcNode
from netstack.runtime import rot
from netstack.runtime.clock import Clock
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.disk import DiskFaults
from netstack.runtime.failpoints import Failpoints
from netstack.runtime.faults import Faults
from netstack.runtime.memory_disk import MemoryStorage
from netstack.runtime.policy import LinkTable
from netstack.runtime.runtime import Runtime
from netstack.runtime.simulation.world import EPOCH, SimulatedNode, World
from raftd.client import ClientError, RaftClient
from raftd.server import RaftService
from security.identity import Authority

HEALTHY_S: Final = 30.0
# A cluster that is able decides in milliseconds who belongs to it; else nobody waits for it.
LEAVES_S: Final = 3.0
POLL_S: Final = 0.05
BASE_PORT: Final = 7400

# As the supervisor has it: so long until a node that ended by itself is started again, and after
# so many ends of that kind in a row it is given up.
RESTART_S: Final = 0.3
ENDS_MAX: Final = 4
STROBE_S: Final = 0.02


class _Host:
    """What the simulation remembers of one machine beside its node."""

    def __init__(self) -> None:
        points = Failpoints(lambda: None, lambda seconds: None)
        clock = Clock(lambda: 0.0, lambda: 0.0)
        self.faults = Faults(LinkTable(random.Random(0)), DiskFaults(), clock, points)
        self.state = "stopped"
        self.ends = 0  # by itself, since somebody last started it
        self.gave_up = Counter[str]()  # over which fault of its disk, in all its lives
        self.fired: list[list[str]] = []  # of each life: the points at which it died
        self.kept: rot.Files = {}
        self.strobe: asyncio.Task[None] | None = None
        self.turns = 0

    def told(self, kind: str, fields: dict[str, Any]) -> None:
        """An event of its process."""
        if fault := ended_over({"kind": kind, **fields}):
            self.gave_up[fault] += 1

    def ended(self) -> dict[str, int]:
        """How often its processes have ended by themselves, and how."""
        return {GONE: sum(map(len, self.fired)), **self.gave_up}


class SimulatedRaft:
    """A cluster in a world.

    Args:
        world: it.
        nodes: how many.
        settings: of the `[raft]` table.
    """

    name = "raft, simulated"
    able = frozenset((PROCESS, PAUSE, FAULTS, FILES, MEMBERS))
    patience = 1.0

    def __init__(
        self,
        world: World,
        nodes: int = 3,
        *,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self._world = world
        self.nodes = tuple(f"n{i}" for i in range(1, nodes + 1))
        configs = tuple(
            NodeConfig(name, "raft", "127.0.0.1", BASE_PORT + i)
            for i, name in enumerate(self.nodes, 1)
        )
        self._raft = {"snapshot_every": 200, "power_cut": True, **(settings or {})}
        self._config = ClusterConfig(
            "sim", "sim", "AESGCM", BASE_PORT, configs, {"raft": self._raft}, Path()
        )
        self._bootstrap: dict[str, list[str]] = {}  # of those that were replaced
        self._entropy = random.Random(f"keys {world.seed}").randbytes
        self._authority = Authority.create("sim", now=EPOCH, entropy=self._entropy)
        self._identities = {n: self._identity(n, "raft") for n in self.nodes}
        self._hosts = {name: _Host() for name in self.nodes}
        self._clients = itertools.count(1)
        for name in self.nodes:
            world.add_node(name, self._start_node)

    def _identity(self, name: str, role: str) -> Any:
        return self._authority.issue(name, role, now=EPOCH, entropy=self._entropy)

    async def _start_node(self, runtime: Runtime) -> RaftService:
        name, host = runtime.node, self._hosts[runtime.node]
        runtime.faults.apply(host.faults.lasting())
        host.fired.append(runtime.failpoint.fired)
        runtime.events.subscribers.append(host.told)
        config = self._config
        if name in self._bootstrap:
            table = {**self._raft, "bootstrap": self._bootstrap[name]}
            config = dataclasses.replace(config, settings={"raft": table})
        service = RaftService()
        await service.start(runtime, self._identities[name], config)
        host.state = "running"
        return service

    # -- from nothing to healthy, and back

    async def start(self) -> None:
        """See System."""
        for name in self.nodes:
            self._begin(name)
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        await self._until(self._healthy)

    async def stop(self) -> None:
        """See System."""
        self._keeper.cancel()
        for name in self.nodes:
            self._full_speed(name)
            self._world.crash(name)

    def _begin(self, name: str) -> None:
        self._hosts[name].state = "starting"
        self._world.restart(name)

    async def _keep(self) -> None:
        """Start again who ended by itself."""
        while True:
            await asyncio.sleep(RESTART_S)
            for name in self.nodes:
                host = self._hosts[name]
                if self._node(name).running or host.state not in ("running", "starting"):
                    continue
                host.ends += 1
                if host.ends >= ENDS_MAX:
                    host.state = "fatal"
                else:
                    self._begin(name)

    async def _until(self, condition: Callable[[], bool]) -> None:
        deadline = self._world.now + HEALTHY_S
        while not condition():
            if self._world.now > deadline:
                raise NotInTime(f"waited {HEALTHY_S:g} virtual seconds for the cluster, in vain")
            await asyncio.sleep(POLL_S)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[RaftStore]:
        """See System."""
        name = f"client-{next(self._clients)}"
        self._identities[name] = self._identity(name, "client")
        ready: asyncio.Future[RaftClient] = asyncio.get_running_loop().create_future()

        async def start(runtime: Runtime) -> None:
            node = RpcNode(runtime, self._identities[name], service="client")
            await node.start(("127.0.0.1", 0))
            ready.set_result(RaftClient(node, {n.name: n.address for n in self._config.nodes}))

        node = self._world.add_node(name, start)
        node.begin()
        client = await ready
        try:
            yield RaftStore(client, self.nodes)
        finally:
            client.close()
            self._world.crash(name)

    def differ(self) -> str:
        """After peace: how the stores of two nodes differ that applied the same; else nothing."""
        first: dict[int, tuple[str, str]] = {}
        for name in self.nodes:
            store = self._node(name).service.replica.store
            other, content = first.setdefault(store.applied_index, (name, store.hash()))
            if content != store.hash():
                return f"those of {other} and {name}, who both applied {store.applied_index:,}"
        return ""

    # -- what is seen

    def _node(self, name: str) -> SimulatedNode:
        return self._world.nodes[name]

    def _healthy(self) -> bool:
        return all(view.health == "ok" for view in self._views().values())

    def _views(self) -> dict[str, View]:
        return {name: self._view(name) for name in self.nodes}

    def _view(self, name: str) -> View:
        node, host = self._node(name), self._hosts[name]
        if not node.running or node.service is None:
            state = "backoff" if host.state in ("running", "starting") else host.state
            return View(name, state, lives=node.lives)
        state = "paused" if node.life is not None and node.life.held is not None else "running"
        core = node.service.replica.core
        trouble = node.service.status()["trouble"]
        health = "silent" if state == "paused" else trouble or "ok"
        return View(name, state, core.role, core.term, health, node.lives)

    async def look(self) -> dict[str, View]:
        """See System."""
        return self._views()

    def address(self, node: str) -> str:
        """See System."""
        return f"127.0.0.1:{self._config.node(node).port}"

    # -- what is done to it

    async def kill(self, node: str) -> str:
        """See System."""
        self._full_speed(node)
        self._hosts[node].state = "killed"
        if not self._node(node).running:
            raise NoEffect(f"{node} has no process")
        self._world.crash(node)
        return f"{node}: its process is gone"

    async def lose(self, node: str) -> str:
        """See System; in this network nobody refuses in a dead node's place anyhow."""
        return await self.kill(node)

    async def revive(self, node: str) -> str:
        """See System; returns the state in which that ended."""
        host = self._hosts[node]
        if not self._node(node).running and host.state in ("killed", "stopped", "fatal"):
            host.ends = 0
            self._begin(node)
        await self._until(lambda: self._view(node).state not in ("starting", "backoff"))
        return self._view(node).state

    async def pause(self, node: str) -> str:
        """See System."""
        self._full_speed(node)
        if not self._node(node).running:
            raise NoEffect(f"{node} has no process")
        self._node(node).pause()
        return f"{node} stands still"

    async def resume(self, node: str) -> str:
        """See System."""
        if self._node(node).running:
            self._node(node).resume()
        return f"{node} goes on"

    async def slow(self, node: str, share: float) -> str:
        """See System."""
        host = self._hosts[node]
        turns = host.turns
        self._full_speed(node)
        if share < 1:
            host.strobe = asyncio.get_running_loop().create_task(self._strobe(node, share))
        return f"{node} stood still {turns} times" if turns else ""

    async def _strobe(self, name: str, share: float) -> None:
        node = self._node(name)
        while node.running:
            node.pause()
            await asyncio.sleep(STROBE_S * (1 - share))
            node.resume()
            self._hosts[name].turns += 1
            await asyncio.sleep(STROBE_S * share)

    def _full_speed(self, name: str) -> None:
        host = self._hosts[name]
        if host.strobe is not None:
            host.strobe.cancel()
            host.strobe, host.turns = None, 0
            if self._node(name).running:
                self._node(name).resume()

    async def faults(self, node: str, change: dict[str, Any]) -> dict[str, Any]:
        """See System."""
        host, runtime = self._hosts[node], self._node(node).runtime
        host.faults.apply(change)
        ends = {"ends": host.ended()}
        if runtime is None:
            return host.faults.describe() | ends
        runtime.faults.apply(change)
        clocks = {"wall": runtime.clock.wall(), "steady": runtime.clock.now()}
        return runtime.faults.describe() | clocks | ends

    async def damage(self, node: str, how: str, seed: int) -> str:
        """See System."""
        simulated, host = self._node(node), self._hosts[node]
        if simulated.running:
            raise Refused(f"{node} is running; kill it first")
        if how == "keep":
            host.kept = rot.keep(simulated.storage)
            return f"a copy of {len(host.kept)} files is kept"
        if how == "put-back":
            return rot.put_back(simulated.storage, host.kept)
        return rot.ROT[how](simulated.storage, random.Random(seed))

    async def leave(self, nodes: Sequence[str]) -> str:
        """See System."""
        async with self.client() as store:
            try:
                voters = await store.raft.change_members({}, nodes, timeout_s=LEAVES_S)
            except ClientError as error:
                raise Refused(str(error)) from None
        return f"{', '.join(voters)} go on without {', '.join(nodes)}"

    async def replace(self, node: str) -> str:
        """See System."""
        others = [n for n, view in self._views().items() if n != node and view.health == "ok"]
        if len(others) <= len(self.nodes) // 2:
            raise Refused("the others are no majority now")
        if self._node(node).running:
            self._world.crash(node)
        self._hosts[node].state = "stopped"
        async with self.client() as store:
            client = store.raft
            try:
                await client.change_members({}, [node], timeout_s=HEALTHY_S)
                self._node(node).storage = MemoryStorage()
                self._bootstrap[node] = others
                self._hosts[node].ends = 0
                self._begin(node)
                address = self._config.node(node).address
                await client.change_members({node: address}, [], timeout_s=HEALTHY_S)
            except ClientError as error:
                raise Refused(str(error)) from None
        return f"{node} has a new copy"
