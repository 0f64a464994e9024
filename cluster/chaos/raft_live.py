"""Our store on live processes, as a campaign harms and asks it.

Everything goes the way a person's commands go: to the supervisor over its socket. A fresh cluster
has a home of its own in the run's folder, free ports, and disks on which kill -9 loses what was
not synced; a running one is left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from cluster import topology
from cluster.chaos.catalogue import FAULTS, FILES, MEMBERS, PAUSE, PROCESS
from cluster.chaos.evidence import GONE, ended_over
from cluster.chaos.raft_client import RaftStore
from cluster.chaos.stopping import stands_still
from cluster.chaos.system import NoEffect, Refused, View
from cluster.cli.repair import replace_node
from cluster.control import REQUEST_BYTES_MAX, running, socket_path, start_supervisor
from cluster.errors import NotInTime, NotRunning, Unhealthy
from cluster.process import state_of
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig
from netstack.runtime.runtime import RealRuntime
from netstack.transport.config import TransportConfig
from raftd.client import ClientError, RaftClient
from security import keystore

HEALTHY_S: Final = 30.0
POLL_S: Final = 0.05
# A cluster that is able decides in milliseconds who belongs to it; else nobody waits for it.
LEAVES_S: Final = 5.0


class LiveRaft:
    """A cluster of real daemons.

    Args:
        home: its folder.
        nodes: how many; 0: those of the cluster that runs there, which is left running.
    """

    name = "raft"
    able = frozenset((PROCESS, PAUSE, FAULTS, FILES, MEMBERS))
    patience = 1.0

    def __init__(self, home: Path, nodes: int = 0) -> None:
        self.home = home
        self._own = nodes > 0
        if self._own:
            topology.create(home, {"raft": nodes}, any_port=True, power_cut=True)
        self._config: ClusterConfig = topology.load(home)
        self.nodes = tuple(node.name for node in self._config.of_service("raft"))
        self._addresses = {n.name: f"{n.host}:{n.port}" for n in self._config.of_service("raft")}
        self._rpc: RpcNode | None = None
        self._runtime: RealRuntime | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None  # if it is ours to reap
        self._ends: dict[str, Counter[str]] = {name: Counter() for name in self.nodes}
        self._read = Counter[str]()  # bytes of each one's event log

    # -- from nothing to healthy, and back

    async def start(self) -> None:
        """See System."""
        if self._own:
            self._supervisor = await asyncio.to_thread(start_supervisor, self.home)
            await self._ask("reload")
        identity = keystore.load_identity(self.home, "cli")
        self._runtime = RealRuntime("cli", self.home / "nodes" / "cli")
        config = TransportConfig(suite=self._config.suite)
        self._rpc = RpcNode(self._runtime, identity, service="client", config=config)
        await self._rpc.start(("127.0.0.1", 0))
        await self._until(self._healthy)

    async def stop(self) -> None:
        """See System."""
        if self._rpc is not None and self._runtime is not None:
            await self._rpc.close()
            self._runtime.close()
        if self._own and running(self.home):
            await self._ask("down")

            async def ended() -> bool:
                return not running(self.home)

            await self._until(ended)
            if self._supervisor is not None:
                await asyncio.to_thread(self._supervisor.wait, HEALTHY_S)

    async def _healthy(self) -> bool:
        return all(view.health == "ok" for view in (await self.look()).values())

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for something of which nobody tells; raises NotInTime."""
        deadline = time.monotonic() + HEALTHY_S
        while not await condition():
            if time.monotonic() > deadline:
                raise NotInTime(f"waited {HEALTHY_S:g} s for the cluster in {self.home}, in vain")
            await asyncio.sleep(POLL_S)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[RaftStore]:
        """See System."""
        assert self._rpc is not None, "started"
        members = {node.name: node.address for node in self._config.of_service("raft")}
        client = RaftClient(self._rpc, members)
        try:
            yield RaftStore(client, self.nodes)
        finally:
            client.close()

    # -- what is seen

    async def _ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """One request to the supervisor; raises RingError."""
        try:
            reader, writer = await asyncio.open_unix_connection(
                str(socket_path(self.home)), limit=REQUEST_BYTES_MAX
            )
        except OSError:
            raise NotRunning(f"no cluster is running in {self.home}") from None
        try:
            writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            answer = json.loads(await reader.readline())
        except ValueError:
            raise NotRunning("the supervisor has gone") from None
        finally:
            writer.close()
        if not answer.pop("ok"):
            raise Unhealthy(answer["error"])
        return dict(answer)

    async def look(self) -> dict[str, View]:
        """See System."""
        rows = (await self._ask("status"))["nodes"]
        return {
            row["name"]: View(
                row["name"],
                row["state"],
                row["says"].get("role", "-"),
                row["says"].get("term", 0),
                row["health"],
                row["restarts"],
            )
            for row in rows
            if row["service"] == "raft"
        }

    async def _state(self, node: str) -> str:
        return (await self.look())[node].state

    def address(self, node: str) -> str:
        """See System."""
        return self._addresses[node]

    # -- what is done to it

    async def kill(self, node: str) -> str:
        """See System."""
        pid = await self._pid(node)
        await self._ask("kill", nodes=[node])
        if state_of(pid):
            raise NoEffect(f"process {pid} of {node} is still there")
        return f"{node}: process {pid} is gone"

    async def lose(self, node: str) -> str:
        """See System."""
        pid = await self._pid(node)
        await self._ask("lose", nodes=[node])
        if state_of(pid):
            raise NoEffect(f"process {pid} of {node} is still there")
        return f"{node}: process {pid} is gone, and its port is silent"

    async def revive(self, node: str) -> str:
        """See System; returns the state in which that ended."""
        if await self._state(node) in ("killed", "stopped", "fatal"):
            await self._ask("restart", nodes=[node])

        async def settled() -> bool:
            return await self._state(node) not in ("starting", "backoff")

        await self._until(settled)
        return await self._state(node)

    async def pause(self, node: str) -> str:
        """See System."""
        pid = await self._pid(node)
        await self._ask("pause", nodes=[node])
        return await stands_still(node, pid)

    async def resume(self, node: str) -> str:
        """See System."""
        if await self._state(node) == "paused":
            await self._ask("resume", nodes=[node])
        return f"{node} goes on"

    async def slow(self, node: str, share: float) -> str:
        """See System."""
        turns = (await self._ask("slow", nodes=[node], share=share))["turns"][node]
        return f"{node} was stopped {turns} times" if turns else ""

    async def faults(self, node: str, change: dict[str, Any]) -> dict[str, Any]:
        """See System."""
        answer = (await self._ask("faults", changes={node: change}))["faults"][node]
        if "error" in answer and await self._state(node) not in ("paused", "starting", "backoff"):
            raise Refused(f"{node} did not take the fault: {answer['error']}")
        ends = {"ends": dict(self._ended()[node])}
        return {"links": {}, "disk": {}, "clock": {}, "points": {}, "struck": {}, **answer, **ends}

    def _ended(self) -> dict[str, Counter[str]]:
        """How often their processes have ended by themselves.

        That one was gone, the supervisor writes down; that it gave up, and over what, it does.
        """
        for event in self._news("supervisor", b"process.exit"):
            by_itself = event.get("state") in ("backoff", "fatal")
            if by_itself and event["status"] == -signal.SIGKILL and event["target"] in self._ends:
                self._ends[event["target"]][GONE] += 1
        for name in self.nodes:
            for event in self._news(name, b"node.fatal"):
                if fault := ended_over(event):
                    self._ends[name][fault] += 1
        return self._ends

    def _news(self, name: str, kind: bytes) -> Iterator[dict[str, Any]]:
        """Events of a kind that a node has written down since this was last asked."""
        path, read = self.home / "nodes" / name / "events.jsonl", self._read[name]
        try:
            with path.open("rb") as log:
                if read > path.stat().st_size:
                    read = 0  # another log has taken its place
                log.seek(read)
                lines = log.read().rpartition(b"\n")[0]
        except OSError:
            return
        self._read[name] = read + len(lines) + (1 if lines else 0)
        for line in lines.splitlines():
            if kind in line and (event := json.loads(line))["kind"] == kind.decode():
                yield event

    async def damage(self, node: str, how: str, seed: int) -> str:
        """See System."""
        done: dict[str, str] = (await self._ask("damage", nodes=[node], how=how, seed=seed))["done"]
        return done[node]

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
        try:
            aside = await asyncio.to_thread(replace_node, self.home, node, HEALTHY_S)
        except (Unhealthy, NotInTime) as error:
            raise Refused(str(error)) from None
        shutil.rmtree(aside, ignore_errors=True)
        return f"{node} has a new copy"

    async def _pid(self, node: str) -> int:
        for row in (await self._ask("status"))["nodes"]:
            if row["name"] == node and row["pid"]:
                return int(row["pid"])
        raise NoEffect(f"{node} has no process")
