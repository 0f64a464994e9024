"""A simulated MapReduce: whole daemons in virtual time, whose attempts run in this process."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from mapreduce.attempt import run_attempt
from mapreduce.client import MapReduceClient
from mapreduce.master import MasterService
from mapreduce.messages import Failure, Result
from mapreduce.programs import load
from mapreduce.worker import WorkerService
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.simulation.world import EPOCH, World
from security.identity import Authority

WORKERS = ("w1", "w2", "w3")


class InlinePool:
    """Runs an attempt after some virtual time; the files are real ones."""

    def __init__(self, dice):
        self._dice = dice
        self._running = {}

    async def start(self):
        pass

    async def run(self, mission):
        start = mission.start
        state = self._running[start.attempt] = {"why": "", "began": 0}
        for step in range(10):
            await asyncio.sleep(self._dice.uniform(0.01, 0.1))
            state["began"] = step
            if state["why"]:
                failure = Failure("lost", state["why"])
                del self._running[start.attempt]
                return Result(start.attempt, start.job_id, start.kind, start.index, failure=failure)
        os.makedirs(mission.folder, exist_ok=True)
        del self._running[start.attempt]
        return run_attempt(mission, load(mission.job))

    def kill(self, attempt, why):
        if attempt in self._running:
            self._running[attempt]["why"] = why

    def progress(self, attempt):
        step = self._running.get(attempt, {}).get("began", 0)
        return (step, step, 10), ""

    async def stop(self):
        pass


class SimulatedCluster:
    """One master, three workers, and a client."""

    def __init__(self, world: World, home: Path) -> None:
        self.world = world
        self.home = home
        names = {"m1": "mrmaster", **dict.fromkeys(WORKERS, "mapreduce")}
        nodes = tuple(
            NodeConfig(name, service, "127.0.0.1", 7400 + i)
            for i, (name, service) in enumerate(names.items(), 1)
        )
        self.config = ClusterConfig("sim", f"sim{world.seed}", "AESGCM", 7400, nodes, {}, home)
        entropy = random.Random("mapreduce").randbytes
        authority = Authority.create(self.config.id, now=EPOCH, entropy=entropy)
        self._identities = {
            name: authority.issue(name, service, now=EPOCH, entropy=entropy)
            for name, service in {**names, "cli": "client"}.items()
        }
        for name in names:
            world.add_node(name, self._start)
            world.restart(name)

    async def _start(self, runtime):
        name = runtime.node
        if name == "m1":
            service = MasterService()
        else:
            dice = random.Random(f"{self.world.seed}/{name}")
            service = WorkerService(lambda folder, slots, warm, variables: InlinePool(dice))
        await service.start(runtime, self._identities[name], self.config)
        return service

    async def client(self) -> MapReduceClient:
        made = asyncio.get_running_loop().create_future()

        async def start(runtime):
            node = RpcNode(runtime, self._identities["cli"], service="client")
            await node.start(("127.0.0.1", 0))
            made.set_result(MapReduceClient(node, self.config))

        self.world.add_node("cli", start)
        self.world.restart("cli")
        return await made
