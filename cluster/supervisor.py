"""The one process that starts and watches all daemons of a cluster.

It is asked over a Unix socket, a JSON line a request and a JSON line an answer:

    {"do": "status"}                            rows of all nodes, with what each says of itself
    {"do": "reload"}                            start what cluster.toml has, stop what it has not
    {"do": "kill" | "pause" | "resume" | "restart" | "stop", "nodes": ["n1"]}
    {"do": "lose", "nodes": ["n1"]}             killed, and silent instead of refusing
    {"do": "slow", "nodes": ["n1"], "share": 0.3}    gets so much of its time; 1: all of it again
    {"do": "damage", "nodes": ["n1"], "how": "flip", "seed": 7}    its files, while it is down
    {"do": "faults", "changes": {"n1": {…}}}    passed on to the daemons (netstack.runtime.faults)
    {"do": "metrics", "nodes": […]}
    {"do": "trust"}                             read certificates again, and have all do so
    {"do": "down"}                              stop everything, answer, end

A daemon that exits by itself is started again, with growing pauses; one that was killed on
purpose is not. Starts and stops of one daemon wait for each other, so that it never has two
processes. Faults of links, disks and clocks outlive the daemon's process, as they would outlive
that of a real machine. No daemon outlives this process (see process.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cluster import topology
from cluster.control import REQUEST_BYTES_MAX, socket_path
from cluster.errors import Usage
from cluster.misfortunes import SilentPort, Strobe, damage
from cluster.node import BACKOFF, FATAL, PAUSED, RUNNING, STARTING, IllegalTransition, NodeState
from cluster.process import Process, become_subreaper, daemon_command
from cluster.services import SERVICES
from netstack.rpc.admin import AdminClient
from netstack.rpc.errors import RpcError
from netstack.rpc.node import RpcNode
from netstack.runtime.clock import Clock
from netstack.runtime.config import ClusterConfig, ConfigError, NodeConfig
from netstack.runtime.disk import DiskFaults
from netstack.runtime.failpoints import Failpoints
from netstack.runtime.faults import Faults
from netstack.runtime.policy import LinkTable
from netstack.runtime.runtime import RealRuntime
from netstack.transport.config import TransportConfig
from security import keystore

# A daemon gets this long to end by itself after SIGTERM.
STOP_S = 8.0
# How long status waits for a daemon that does not answer (paused, cut off, busy).
STATUS_S = 0.4
# How often the supervisor looks whether a certificate is due: they last for months.
RENEW_CHECK_S = 3600.0
# Lines of a failed daemon's output that are shown.
LAST_LINES = 20

# What a request does to a node's state, and which signal it sends.
SIGNALS: Final[dict[str, tuple[Callable[[NodeState], None], signal.Signals]]] = {
    "kill": (NodeState.killed, signal.SIGKILL),
    "pause": (NodeState.paused, signal.SIGSTOP),
    "resume": (NodeState.resumed, signal.SIGCONT),
}


class Daemon:
    """One node: its state, and its process while it has one."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.state = NodeState(config.name)
        self.process: Process | None = None
        self.gone = asyncio.Event()
        self.gone.set()
        self.changing = asyncio.Lock()  # held from the stop to the start of a restart
        self.admin: AdminClient | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.faults = _no_faults()  # what the next life begins with
        self.told = True  # the present one knows of them
        self.missed: list[dict[str, Any]] = []  # of its crash points, while it stood still
        self.silence: SilentPort | None = None
        self.strobe: Strobe | None = None

    def speak(self) -> None:
        """Its port is its own again."""
        if self.silence is not None:
            self.silence.close()
            self.silence = None

    def full_speed(self) -> None:
        """It has all of its time again."""
        if self.strobe is not None:
            self.strobe.stop()
            self.strobe = None


def _no_faults() -> Faults:
    links, points = LinkTable(random.Random()), Failpoints(lambda: None, lambda seconds: None)
    return Faults(links, DiskFaults(), Clock(time.monotonic, time.time), points)


def _check_reachable(daemon: Daemon, change: dict[str, Any]) -> None:
    """Raises ValueError if it is to die at a line of its code, and runs none."""
    points = change.get("points", {})
    if daemon.process is None and isinstance(points, dict) and any(points.values()):
        name, state = daemon.state.name, daemon.state.state
        raise ValueError(f"{name} is {state}: without a process it comes to no line of its code")


def _of_points(change: dict[str, Any]) -> dict[str, Any]:
    """The part of a change that is the process's own, and not its machine's."""
    healed = [part for part in change.get("heal", []) if part == "points"]
    return {"points": change.get("points", {}), "heal": healed}


class Supervisor:
    """All daemons of one home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._loop = asyncio.get_running_loop()
        self._daemons: dict[str, Daemon] = {}
        self._ended = asyncio.Event()
        self._config: ClusterConfig = ClusterConfig.load(home / "cluster.toml")
        self._runtime = RealRuntime("supervisor", home / "nodes" / "supervisor")
        identity = keystore.load_identity(home, "supervisor")
        transport = TransportConfig(suite=self._config.suite)
        self._node = RpcNode(self._runtime, identity, service="supervisor", config=transport)
        self._server: asyncio.Server | None = None

    async def run(self) -> None:
        """Serve until told to end."""
        await self._node.start(("127.0.0.1", 0))
        path = socket_path(self._home)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        limit = REQUEST_BYTES_MAX
        self._server = await asyncio.start_unix_server(self._serve, str(path), limit=limit)
        path.chmod(0o600)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, lambda: self._runtime.spawn(self._down(), "down"))
        self._runtime.events.emit("supervisor.start", pid=os.getpid())
        self._runtime.spawn(self._keep_certificates(), "certificates")
        await self._ended.wait()
        self._server.close()
        path.unlink(missing_ok=True)
        await self._runtime.cancel_tasks()
        await self._node.close()
        self._runtime.events.emit("supervisor.stop")
        self._runtime.close()

    # -- requests

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json.dumps(answer, default=str).encode() + b"\n")
                await writer.drain()
        except ValueError:
            too_long = {"ok": False, "error": f"a request has {REQUEST_BYTES_MAX} bytes at most"}
            writer.write(json.dumps(too_long).encode() + b"\n")
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "status": self._status,
            "reload": self._reload,
            "faults": self._faults,
            "metrics": self._metrics,
            "trust": self._trust,
            "down": self._down_request,
            **dict.fromkeys(SIGNALS, self._signal),
            "lose": self._lose,
            "slow": self._slow,
            "damage": self._damage,
            "restart": self._restart_request,
            "stop": self._stop_request,
        }
        try:
            request = _parse(line)
            return {"ok": True, **await handlers[request["do"]](request)}
        except (IllegalTransition, ConfigError, RpcError) as error:
            return {"ok": False, "error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            return {"ok": False, "error": f"not understood: {line[:200]!r} ({error})"}
        except Exception as error:
            traceback.print_exc()
            return {"ok": False, "error": f"{error!r}; more in {self._home}/run/supervisor.log"}

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        rows = await asyncio.gather(*(self._row(daemon) for daemon in self._daemons.values()))
        return {"home": str(self._home), "pid": os.getpid(), "nodes": list(rows)}

    async def _row(self, daemon: Daemon) -> dict[str, Any]:
        state = daemon.state
        row: dict[str, Any] = {
            "name": state.name,
            "service": daemon.config.service,
            "address": f"{daemon.config.host}:{daemon.config.port}",
            "pid": state.pid,
            "state": state.state,
            "restarts": state.restarts,
            "reason": state.reason,
            "health": "down",
            "says": {},
        }
        if state.state == "running":
            try:
                row["says"] = await self._admin(daemon).status(STATUS_S)
                row["health"] = row["says"].get("trouble") or "ok"
                row["reason"] = row["says"].get("why") or state.reason
            except RpcError as error:
                row["health"] = "silent"
                row["reason"] = str(error)
        elif state.state == "paused":
            row["health"] = "silent"
        if state.state in (FATAL, BACKOFF):
            row["output"] = self._last_lines(state.name)
        return row

    def _admin(self, daemon: Daemon) -> AdminClient:
        if daemon.admin is None:
            config = daemon.config
            client = self._node.client(config.address, config.service, config.name)
            daemon.admin = AdminClient(client)
        return daemon.admin

    async def _faults(self, request: dict[str, Any]) -> dict[str, Any]:
        changes = request["changes"]

        async def apply(name: str, change: dict[str, Any]) -> tuple[str, Any]:
            daemon = self._daemon(name)
            try:
                _check_reachable(daemon, change)
                daemon.faults.apply(change)
                if daemon.process is None or daemon.state.state == PAUSED:
                    daemon.told = False
                    daemon.missed.append(_of_points(change))
                    return name, daemon.faults.describe()
                return name, await self._admin(daemon).faults(change)
            except (RpcError, ValueError) as error:
                return name, {"error": str(error)}

        answers = await asyncio.gather(*(apply(name, c) for name, c in changes.items()))
        return {"faults": dict(answers)}

    async def _catch_up(self, daemon: Daemon) -> None:
        """Tell it what has gone wrong with its machine while it stood still."""
        daemon.told = True
        missed, daemon.missed = daemon.missed, []
        change = {"heal": ["links", "disk", "clock"], **daemon.faults.lasting()}
        with contextlib.suppress(RpcError):
            for of_points in (*missed, change):
                await self._admin(daemon).faults(of_points)

    async def _metrics(self, request: dict[str, Any]) -> dict[str, Any]:
        names = request.get("nodes") or list(self._daemons)
        answers: dict[str, Any] = {}
        for name in names:
            try:
                answers[name] = await self._admin(self._daemon(name)).metrics()
            except RpcError as error:
                answers[name] = {"error": str(error)}
        return {"metrics": answers}

    async def _trust(self, _: dict[str, Any]) -> dict[str, Any]:
        self._node.trust(keystore.load_identity(self._home, "supervisor"))
        told = [d for d in self._daemons.values() if d.process is not None]
        for daemon in told:
            if daemon.process is not None and daemon.state.state != STARTING:
                daemon.process.signal(signal.SIGHUP)
        return {"told": [daemon.state.name for daemon in told]}

    async def _keep_certificates(self) -> None:
        """Renew what is due, long before it expires."""
        while True:
            try:
                renewed = topology.renew_due_certificates(self._home, self._config)
            except Usage as error:
                self._runtime.events.emit("certificates.not_renewed", cause=str(error))
            else:
                if renewed:
                    self._runtime.events.emit("certificates.renewed", names=renewed)
                    await self._trust({})
            await asyncio.sleep(RENEW_CHECK_S)

    async def _reload(self, _: dict[str, Any]) -> dict[str, Any]:
        self._config = ClusterConfig.load(self._home / "cluster.toml")
        wanted = {node.name: node for node in self._config.nodes}
        gone = [name for name in self._daemons if name not in wanted]
        await asyncio.gather(*(self._remove(self._daemons[name]) for name in gone))
        started = []
        for name, node in wanted.items():
            daemon = self._daemons.setdefault(name, Daemon(node))
            async with daemon.changing:
                if not daemon.state.alive and daemon.state.state != BACKOFF:
                    await daemon.gone.wait()
                    self._start(daemon)
                    started.append(name)
        return {"started": started, "stopped": gone}

    async def _signal(self, request: dict[str, Any]) -> dict[str, Any]:
        """Kill, pause or resume those whose state allows it; an error if that is none."""
        verb = request["do"]
        transition, number = SIGNALS[verb]
        done: list[Daemon] = []
        refused: list[str] = []
        for daemon in [self._daemon(name) for name in request["nodes"]]:
            try:
                transition(daemon.state)
            except IllegalTransition as error:
                refused.append(str(error))
                continue
            daemon.full_speed()
            if daemon.process is not None:
                daemon.process.signal(number)
            if verb == "resume" and not daemon.told:
                self._runtime.spawn(self._catch_up(daemon), f"faults of {daemon.state.name}")
            done.append(daemon)
        if refused and not done:
            raise IllegalTransition("; ".join(refused))
        if verb == "kill":
            await asyncio.gather(*(daemon.gone.wait() for daemon in done))
        return {"nodes": [daemon.state.name for daemon in done], "refused": refused}

    async def _lose(self, request: dict[str, Any]) -> dict[str, Any]:
        """The machines are gone: no process, and nobody who says so."""
        for daemon in [self._daemon(name) for name in request["nodes"]]:
            async with daemon.changing:
                if daemon.state.alive:
                    await self._signal({"do": "kill", "nodes": [daemon.state.name]})
                daemon.state.stopping()  # nor does it come back by itself
                self._arm(daemon)
                if daemon.silence is None:
                    daemon.silence = SilentPort(daemon.config.address)
                daemon.state.reason = "host lost"
        return {"nodes": request["nodes"]}

    async def _slow(self, request: dict[str, Any]) -> dict[str, Any]:
        share = request["share"]
        turns: dict[str, int] = {}
        for daemon in [self._daemon(name) for name in request["nodes"]]:
            turns[daemon.state.name] = daemon.strobe.turns if daemon.strobe is not None else 0
            daemon.full_speed()
            if share == 1:
                continue
            if daemon.state.state != RUNNING or daemon.process is None:
                raise IllegalTransition(
                    f"{daemon.state.name} is {daemon.state.state}; only a running node is slowed"
                )
            daemon.strobe = Strobe(daemon.process.signal, share)
        return {"turns": turns}

    async def _damage(self, request: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, str] = {}
        for daemon in [self._daemon(name) for name in request["nodes"]]:
            name = daemon.state.name
            async with daemon.changing:
                if daemon.process is not None:
                    raise IllegalTransition(f"{name} is {daemon.state.state}; kill it first")
                folder = self._home / "nodes" / name
                done[name] = damage(folder, request["how"], int(request.get("seed", 0)))
            self._runtime.events.emit("disk.damaged", target=name, cause=done[name])
        return {"done": done}

    async def _restart_request(self, request: dict[str, Any]) -> dict[str, Any]:
        daemons = [self._daemon(name) for name in request["nodes"]]
        await asyncio.gather(*map(self._restart, daemons))
        return {"nodes": [daemon.state.name for daemon in daemons]}

    async def _stop_request(self, request: dict[str, Any]) -> dict[str, Any]:
        daemons = [self._daemon(name) for name in request["nodes"]]
        await asyncio.gather(*map(self._stop, daemons))
        return {"nodes": [daemon.state.name for daemon in daemons]}

    async def _down_request(self, _: dict[str, Any]) -> dict[str, Any]:
        stopped = [d.state.name for d in self._daemons.values() if d.state.alive]
        await self._down()
        return {"stopped": stopped}

    async def _down(self) -> None:
        await asyncio.gather(*(self._stop(daemon) for daemon in self._daemons.values()))
        for daemon in self._daemons.values():
            daemon.speak()
        # The answer to whoever asked leaves first.
        self._loop.call_later(0.05, self._ended.set)

    def _daemon(self, name: str) -> Daemon:
        try:
            return self._daemons[name]
        except KeyError:
            raise IllegalTransition(f"there is no node {name!r} here") from None

    # -- processes

    def _start(self, daemon: Daemon) -> None:
        module = SERVICES[daemon.config.service].module
        name = daemon.config.name
        command = daemon_command(module, name, self._home / "cluster.toml")
        daemon.speak()
        faults = {"RING_FAULTS": json.dumps(daemon.faults.lasting())}
        process = Process.spawn(command, self._home / "nodes" / name / "output.log", faults)
        daemon.process = process
        daemon.told, daemon.missed = True, []
        daemon.gone.clear()
        daemon.state.starting(process.pid, self._loop.time())
        self._remember_pids()
        self._loop.add_reader(process.ready_fd, self._said_something, daemon, process)
        self._loop.add_reader(process.pidfd, self._exited, daemon, process)
        self._arm(daemon)
        self._runtime.events.emit("process.start", target=name, pid=process.pid)

    def _said_something(self, daemon: Daemon, process: Process) -> None:
        data = os.read(process.ready_fd, 64)
        if data.startswith(b"ready"):
            daemon.state.ready()
            self._arm(daemon)
            self._runtime.events.emit("process.ready", target=daemon.state.name)
        self._loop.remove_reader(process.ready_fd)

    def _exited(self, daemon: Daemon, process: Process) -> None:
        self._loop.remove_reader(process.pidfd)
        self._loop.remove_reader(process.ready_fd)
        status = process.reap()
        daemon.full_speed()
        process.close()
        daemon.process = None
        daemon.state.exited(status, self._loop.time())
        daemon.gone.set()
        self._remember_pids()
        self._arm(daemon)
        self._runtime.events.emit(
            "process.exit", target=daemon.state.name, status=status, state=daemon.state.state
        )

    def _arm(self, daemon: Daemon) -> None:
        """Follow the state's deadline."""
        if daemon.timer is not None:
            daemon.timer.cancel()
            daemon.timer = None
        deadline = daemon.state.deadline
        if deadline is not None:
            daemon.timer = self._loop.call_at(deadline, self._on_deadline, daemon)

    def _on_deadline(self, daemon: Daemon) -> None:
        state = daemon.state
        if state.state == BACKOFF:
            state.restarted()
            self._start(daemon)
        elif state.state == STARTING and daemon.process is not None:
            self._runtime.events.emit("process.not_ready", target=state.name)
            daemon.process.signal(signal.SIGKILL)

    async def _restart(self, daemon: Daemon) -> None:
        async with daemon.changing:
            await self._end(daemon)
            self._daemon(daemon.state.name)  # unless it has been removed in the meantime
            daemon.state.restarted_on_request()
            self._start(daemon)

    async def _remove(self, daemon: Daemon) -> None:
        async with daemon.changing:
            await self._end(daemon)
            daemon.speak()
            del self._daemons[daemon.state.name]

    async def _stop(self, daemon: Daemon) -> None:
        async with daemon.changing:
            await self._end(daemon)

    async def _end(self, daemon: Daemon) -> None:
        """SIGTERM, then SIGKILL; on return there is no process, and none will come by itself."""
        was_paused = daemon.state.state == PAUSED
        daemon.full_speed()
        if daemon.state.stopping() and daemon.process is not None:
            daemon.process.signal(signal.SIGTERM)
            if was_paused:
                daemon.process.signal(signal.SIGCONT)
        self._arm(daemon)
        try:
            async with asyncio.timeout(STOP_S):
                await daemon.gone.wait()
        except TimeoutError:
            if daemon.process is not None:
                daemon.process.signal(signal.SIGKILL)
            await daemon.gone.wait()

    def _remember_pids(self) -> None:
        """For whoever must find strays: pid and start time, which together are never reused."""
        pids = {
            name: {"pid": d.process.pid, "started": d.process.started}
            for name, d in self._daemons.items()
            if d.process is not None
        }
        path = self._home / "run" / "pids.json"
        path.with_suffix(".new").write_text(json.dumps(pids))
        path.with_suffix(".new").rename(path)

    def _last_lines(self, name: str) -> list[str]:
        try:
            text = (self._home / "nodes" / name / "output.log").read_text(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-LAST_LINES:]


def _parse(line: bytes) -> dict[str, Any]:
    """A request; raises ValueError, TypeError or KeyError for what is none."""
    request: dict[str, Any] = json.loads(line)
    if not isinstance(request["do"], str):
        raise TypeError("do should be a word")
    if not isinstance(request.get("changes", {}), dict):
        raise TypeError("changes should be a map from node to change")
    return request


def main() -> None:
    """Entry of the supervisor's process."""
    parser = argparse.ArgumentParser(prog="python -m cluster.supervisor")
    parser.add_argument("--home", required=True, type=Path)
    home = parser.parse_args().home
    become_subreaper()

    async def serve() -> None:
        await Supervisor(home).run()

    try:
        asyncio.run(serve())
    except Exception as error:
        print(f"{time.strftime('%H:%M:%S')} supervisor: {error}", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
