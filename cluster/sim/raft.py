"""`ring sim raft`: three to five nodes of the store in a simulated world that treats them badly.

One seed decides everything: sizes, faults, their times, what clients do. The same seed gives the
same event log, byte for byte. A run has three parts:

    trouble     clients write and read while nodes crash, pause and restart, links are cut, lose,
                delay, repeat and reorder, disks stall and fill up
    peace       all faults end; a leader must appear and every node catch up
    verdict     from what the clients saw, and from the event log

Each key has one writer, who writes 1, 2, 3 …: then linearizability is easy to judge. A read that
begins after write i was acknowledged must see at least i; it must not see what was not yet asked
for; and reads must not go back in time. A key's version counts its writes, so a write that was
applied twice shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import Fatal, Runtime
from netstack.runtime.simulation.network import BASE_POLICY
from netstack.runtime.simulation.world import EPOCH, World
from raftd.client import ClientError, NotReached, OutcomeUnknown, RaftClient, Refused
from raftd.server import RaftService
from security.identity import Authority

# A run with fewer answers than this, or without a change of leader, has tested nothing.
OPERATIONS_MIN = 50
LEADERS_MIN = 2

CLIENTS = 4
PEACE_S = 20.0


class Violation(AssertionError):
    """What a client saw, or the log tells, that must not be."""


@dataclass(slots=True)
class Verdict:
    """How a run ended: "valid", "invalid" or "unknown", and why."""

    seed: int
    outcome: str = "valid"
    why: str = ""
    operations: int = 0
    unknown: int = 0
    leaders: int = 0
    faults: int = 0
    virtual_s: float = 0.0
    log: str = field(default="", repr=False)

    def line(self) -> str:
        """For a person."""
        return (
            f"{self.outcome.upper():8} seed {self.seed}  {self.operations} ops "
            f"({self.unknown} unknown)  {self.leaders} leaders  {self.faults} faults  "
            f"{self.virtual_s:.0f} s  {self.why}"
        )


@dataclass(slots=True)
class Key:
    """What is known of one key, by its only writer and its readers."""

    asked: int = 0  # highest value sent
    acknowledged: int = 0  # highest value answered
    seen: int = 0  # highest value a finished read returned
    unknown: int = 0


def simulate(
    seed: int,
    *,
    seconds: float = 20.0,
    service: Callable[[], RaftService] = RaftService,
) -> Verdict:
    """One run. `service` makes a node's service; the zoo passes broken ones."""
    world = World(seed)
    verdict = Verdict(seed)
    run = _Run(world, verdict, seconds, service)
    try:
        world.run(run.scenario())
        run.judge_log()
    except AssertionError as error:
        verdict.outcome, verdict.why = "invalid", str(error).splitlines()[0]
    finally:
        verdict.virtual_s = world.now
        verdict.log = world.log
        world.close()
    if verdict.outcome == "valid" and (
        verdict.operations < OPERATIONS_MIN or verdict.leaders < LEADERS_MIN
    ):
        verdict.outcome, verdict.why = "unknown", "too little happened to tell"
    return verdict


class _Run:
    """One simulated cluster, its clients and its misfortunes."""

    def __init__(
        self, world: World, verdict: Verdict, seconds: float, service: Callable[[], RaftService]
    ) -> None:
        self.world = world
        self.verdict = verdict
        self.dice = random.Random(f"plan {world.seed}")
        self.seconds = seconds
        self.service = service
        count = self.dice.choice((3, 3, 3, 5))
        self.names = [f"n{i}" for i in range(1, count + 1)]
        self.keys = {f"key-{i}".encode(): Key() for i in range(CLIENTS)}
        nodes = tuple(
            NodeConfig(name, "raft", "127.0.0.1", 7400 + i) for i, name in enumerate(self.names, 1)
        )
        settings = {"raft": {"snapshot_every": self.dice.choice((30, 200, 10_000))}}
        self.config = ClusterConfig("sim", "sim", "AESGCM", 7400, nodes, settings, Path())
        entropy = random.Random(f"keys {world.seed}").randbytes
        authority = Authority.create("sim", now=EPOCH, entropy=entropy)
        self.identities = {
            name: authority.issue(name, role, now=EPOCH, entropy=entropy)
            for name, role in [
                *((name, "raft") for name in self.names),
                *((f"client-{i}", "client") for i in range(CLIENTS)),
            ]
        }
        self.trouble = True

    async def scenario(self) -> None:
        for name in self.names:
            self.world.add_node(name, self._start)
            self.world.restart(name)
        clients = []
        for i in range(CLIENTS):
            node = self.world.add_node(f"client-{i}", self._client)
            node.begin()
            clients.append(node)
        end = self.world.now + self.seconds
        while self.world.now < end:
            await asyncio.sleep(self.dice.uniform(0.05, 1.0))
            self._misfortune()
        self.trouble = False
        self._peace()
        await self._converge()

    async def _start(self, runtime: Runtime) -> RaftService:
        service = self.service()
        await service.start(runtime, self.identities[runtime.node], self.config)
        return service

    # -- clients

    async def _client(self, runtime: Runtime) -> None:
        node = RpcNode(runtime, self.identities[runtime.node], service="client")
        await node.start(("127.0.0.1", 0))
        members = {n.name: n.address for n in self.config.nodes}
        client = RaftClient(node, members)
        own = f"key-{runtime.node.removeprefix('client-')}".encode()
        while True:
            await asyncio.sleep(runtime.rng.expovariate(20.0))
            if runtime.rng.random() < 0.6:
                await self._write(client, own)
            else:
                await self._read(client, runtime.rng.choice(sorted(self.keys)))

    async def _write(self, client: RaftClient, name: bytes) -> None:
        key = self.keys[name]
        key.asked += 1
        value = key.asked
        try:
            await client.put(name, str(value).encode(), timeout_s=3.0)
        except OutcomeUnknown:
            key.unknown += 1
            self.verdict.unknown += 1
        except (NotReached, Refused):
            # Definite: it was not and will not be applied. Then its number is free again.
            key.asked -= 1
        else:
            key.acknowledged = max(key.acknowledged, value)
            self.verdict.operations += 1

    async def _read(self, client: RaftClient, name: bytes) -> None:
        key = self.keys[name]
        floor = max(key.acknowledged, key.seen)
        try:
            pair = await client.get(name, timeout_s=3.0)
        except ClientError:
            return
        self.verdict.operations += 1
        value = int(pair.value) if pair else 0
        if value < floor:
            raise Violation(f"{name.decode()}: read {value} after {floor} was acknowledged")
        if value > key.asked:
            raise Violation(f"{name.decode()}: read {value}, which nobody had written")
        if pair is not None and pair.version > key.asked:
            raise Violation(f"{name.decode()}: {pair.version} writes applied, {key.asked} made")
        key.seen = max(key.seen, value)

    # -- what befalls them

    def _misfortune(self) -> None:
        dice, world = self.dice, self.world
        name = dice.choice(self.names)
        node = world.nodes[name]
        kind = dice.choice(_MISFORTUNES)
        self.verdict.faults += 1
        if kind == "crash":
            world.crash(name)
        elif kind == "crash all":
            for other in self.names:
                world.crash(other)
        elif kind == "restart":
            for other in self.names:
                if not world.nodes[other].running:
                    world.restart(other)
        elif kind == "pause" and node.running:
            node.pause()
            world.loop.call_later(dice.uniform(0.1, 2.0), node.resume)
        elif kind == "partition":
            shuffled = dice.sample(self.names, len(self.names))
            cut = dice.randint(1, len(shuffled) - 1)
            world.network.partition([shuffled[:cut], shuffled[cut:]])
        elif kind == "one way":
            world.network.cut(name, dice.choice([n for n in self.names if n != name]))
        elif kind == "heal":
            world.network.heal()
            world.network.base_policy = BASE_POLICY
        elif kind == "bad links":
            world.network.base_policy = LinkPolicy(
                loss=dice.choice((0.0, 0.05, 0.2)),
                delay_s=dice.choice((0.0001, 0.005, 0.03)),
                jitter_s=dice.choice((0.0, 0.01)),
                duplicate=dice.choice((0.0, 0.1)),
                reorder=dice.choice((0.0, 0.1)),
                corrupt=dice.choice((0.0, 0.02)),
            )
        elif kind == "disk" and node.runtime is not None:
            change: dict[str, Any] = dice.choice(
                ({"slow_s": 0.2}, {"full": True}, {"sync_error": True}, {"eio_at": 3})
            )
            node.runtime.faults.apply({"disk": change})
        elif kind == "disk healed" and node.runtime is not None:
            node.runtime.faults.heal("disk")

    def _peace(self) -> None:
        world = self.world
        world.heal()
        world.network.base_policy = BASE_POLICY
        for name in self.names:
            node = world.nodes[name]
            if node.running:
                node.resume()
            else:
                node.begin()

    async def _converge(self) -> None:
        """Liveness: all faults over, everybody agrees, and every acknowledged write is there."""
        deadline = self.world.now + PEACE_S
        while not self._agreed():
            if self.world.now > deadline:
                states = [repr(self.world.nodes[n].service) for n in self.names]
                raise Violation("no agreement after the faults ended: " + " ".join(states))
            await asyncio.sleep(0.1)
            with contextlib.suppress(StopIteration):
                dead = next(n for n in self.names if not self.world.nodes[n].running)
                if not isinstance(self.world.nodes[dead].ended, Fatal):
                    raise Violation(f"{dead} does not stay up")
                self.world.restart(dead)
        store = self.world.nodes[self.names[0]].service.replica.store
        for name, key in self.keys.items():
            pair = store.get(name)
            value, version = (int(pair.value), pair.version) if pair else (0, 0)
            if value < key.acknowledged:
                raise Violation(f"{name.decode()}: {key.acknowledged} was lost; it holds {value}")
            if version > key.asked:
                raise Violation(f"{name.decode()}: {version} writes applied, {key.asked} made")

    def _agreed(self) -> bool:
        services = [self.world.nodes[n].service for n in self.names]
        if any(s is None for s in services):
            return False
        cores = [s.replica.core for s in services]
        if sum(core.role == "leader" for core in cores) != 1:
            return False
        if len({s.replica.store.applied_index for s in services}) != 1:
            return False
        hashes = {s.replica.store.hash() for s in services}
        if len(hashes) != 1:
            raise Violation("the stores differ at the same applied index")
        return all(core.log.last_index == core.commit for core in cores)

    def judge_log(self) -> None:
        """Election Safety, over all lives of all nodes."""
        leaders: dict[int, str] = {}
        for line in self.world.lines:
            event = json.loads(line)
            if event["kind"] == "raft.role" and event["role"] == "leader":
                other = leaders.setdefault(event["term"], event["node"])
                if other != event["node"]:
                    raise Violation(f"{other} and {event['node']} led term {event['term']}")
        self.verdict.leaders = len(leaders)


_MISFORTUNES = (
    "crash",
    "crash",
    "crash all",
    "restart",
    "restart",
    "restart",
    "pause",
    "partition",
    "one way",
    "heal",
    "heal",
    "bad links",
    "disk",
    "disk healed",
)
