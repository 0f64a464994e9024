"""A supervisor in this process, over stand-in daemons in real ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import standin_kit
from ring_kit import PATIENCE, alive

from cluster import node, supervisor, topology
from cluster.control import socket_path
from cluster.services import SERVICES
from netstack.runtime.events import read_events


class Supervised:
    """A running supervisor, asked as `ring` asks it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def send(self, line: bytes) -> dict[str, Any]:
        """A line to the supervisor's socket, and the answer; {} if it hangs up."""
        path = str(socket_path(self.home))
        reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
        try:
            writer.write(line + b"\n")
            answer = await asyncio.wait_for(reader.readline(), PATIENCE)
        finally:
            writer.close()
        return json.loads(answer) if answer else {}

    async def ask(self, do: str, *nodes: str) -> dict[str, Any]:
        """A request that must succeed."""
        answer = await self.send(json.dumps({"do": do, "nodes": nodes}).encode())
        assert answer["ok"], answer
        return answer

    async def refused(self, do: str, *nodes: str) -> str:
        """A request that must not; what it is told."""
        answer = await self.send(json.dumps({"do": do, "nodes": nodes}).encode())
        assert not answer["ok"], answer
        return answer["error"]

    async def at_once(self, *requests: tuple[str, str]) -> None:
        """Have the supervisor, in a process of its own, find all requests in one look."""
        pid = (await self.ask("status"))["pid"]
        os.kill(pid, signal.SIGSTOP)
        asked = [socket.socket(socket.AF_UNIX) for _ in requests]
        for connection, (do, name) in zip(asked, requests, strict=True):
            connection.settimeout(PATIENCE)
            connection.connect(str(socket_path(self.home)))
            connection.sendall(json.dumps({"do": do, "nodes": [name]}).encode() + b"\n")
        os.kill(pid, signal.SIGCONT)
        for connection in asked:
            connection.recv(65_536)
            connection.close()

    async def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in (await self.ask("status"))["nodes"]}

    async def states(self) -> dict[str, str]:
        return {name: row["state"] for name, row in (await self.rows()).items()}

    def orders(self, name: str, *words: str) -> None:
        """What the node does at its next starts."""
        (self.home / "nodes" / name / "orders").write_text("\n".join(words))

    def story(self, name: str) -> list[str]:
        """What has happened to the node's processes, an entry an event."""
        path = self.home / "nodes" / "supervisor" / "events.jsonl"
        told = []
        for event in read_events(path) if path.exists() else ():
            if event.get("target") == name:
                kind = event["kind"].removeprefix("process.")
                told.append(f"exit {event['status']} {event['state']}" if kind == "exit" else kind)
        return told

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for something that shows in the event log or the process table."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - told by no one
                await asyncio.sleep(0.01)
        assert condition(), what

    async def told(self, name: str, *events: str) -> None:
        """Wait until the node's story has these entries at its end."""
        wanted = list(events)
        try:
            await self.until(lambda: self.story(name)[-len(wanted) :] == wanted, "the story")
        except TimeoutError:
            raise AssertionError(f"{name}: {self.story(name)} does not end {wanted}") from None

    def processes(self) -> dict[int, str]:
        """pid -> node, of all daemons of this home that live, whoever knows of them."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                if str(self.home / "cluster.toml") in words and alive(int(path.parts[2])):
                    found[int(path.parts[2])] = words[words.index("--node") + 1]
        return found


def stand_in(home: Path) -> None:
    """Have supervisors of this process start stand-ins; they find the module in PYTHONPATH."""
    os.environ["PYTHONPATH"] = str(Path(standin_kit.__file__).parent)
    SERVICES["raft"] = replace(SERVICES["raft"], module="standin_kit")
    # Stand-ins answer no calls; and the pauses of real life prove nothing here.
    supervisor.STATUS_S = 0.02
    node.BACKOFF_S_MIN = 0.02
    if not topology.exists(home):
        topology.create(home, {"raft": 3}, any_port=True, power_cut=False)


@contextlib.asynccontextmanager
async def supervised(home: Path, monkeypatch) -> AsyncIterator[Supervised]:
    """A supervisor of three stand-ins in this process; afterwards nothing of it runs any more."""
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(supervisor, "STATUS_S", supervisor.STATUS_S)
    monkeypatch.setattr(node, "BACKOFF_S_MIN", node.BACKOFF_S_MIN)
    monkeypatch.setitem(SERVICES, "raft", SERVICES["raft"])
    stand_in(home)
    running = asyncio.create_task(supervisor.Supervisor(home).run())
    kept = Supervised(home)
    await kept.until(socket_path(home).exists, "the supervisor's socket")
    try:
        yield kept
    finally:
        if not running.done():
            await kept.ask("down")
        await asyncio.wait_for(running, PATIENCE)
    assert not kept.processes(), "daemons were left behind"


@contextlib.asynccontextmanager
async def supervised_apart(home: Path) -> AsyncIterator[Supervised]:
    """The same in a process of its own, which is killed: it may have lost sight of a child."""
    kept = Supervised(home)
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(home))
    try:
        await kept.until(socket_path(home).exists, "the supervisor's socket")
        yield kept
    finally:
        process.kill()
        await process.wait()
    await kept.until(lambda: not kept.processes(), "the end of all daemons")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    stand_in(folder)

    async def serve() -> None:
        await supervisor.Supervisor(folder).run()

    asyncio.run(serve())
