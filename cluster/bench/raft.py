"""`ring bench raft`: closed-loop puts and linearizable gets on three durable nodes, and failover.

Our nodes run as `ring up` starts them, in a temporary home, with their disks synced. The clients
are N loops over one connection in one Python process, which shares the two cores with the nodes.
The peer is Debian's etcd under the same number of closed loops, by two kinds of client: h2load, in
C, which repeats one prepared request (etcd_peer.py), and a Python program that does what ours does,
with grpcio (etcd_client.py).

Failover is the time from kill -9 of the leader to the next acknowledged write, by one client that
tries all the time; the killed node is started again before the next trial.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cluster.bench import etcd_client, etcd_peer
from cluster.bench.closed_loop import closed_loop
from cluster.bench.harness import Failed, Load, Report, Row, compare
from cluster.control import Control
from raftd.client import RaftClient

CLIENTS = (1, 16, 64, 256)
KEYS, VALUE = etcd_client.KEYS, etcd_client.VALUE
PYTHON = "etcd, from Python"
ROUNDS = 3
TRIALS = 20
ETCD_TRIALS = 7
FAILOVER_S_MAX = 60.0

Taken = TypeVar("Taken")

# What this project asks of itself.
BAR_RATIO = 1.0
FAILOVER_MEDIAN_MS, FAILOVER_WORST_MS = 300.0, 1000.0


class Rival:
    """etcd's part in a run: what goes wrong with it ends its figures, and not ours."""

    def __init__(self, missing: str, *, wanted: bool) -> None:
        self.missing = missing
        self.failed = ""
        self.takes_part = wanted and not self.missing

    def figures(self, take: Callable[..., Taken], *of: Any) -> Taken | None:
        """What `take(*of)` returns; None if etcd has no part in it, or no more."""
        if not self.takes_part or self.failed:
            return None
        try:
            return take(*of)
        except etcd_peer.FAILURES as error:
            self.failed = f"etcd failed: {error}"
            return None


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """Take all rounds, ours and etcd's in turn, both clusters up all the time."""
    report = Report("raft")
    rival = Rival(etcd_peer.missing(), wanted=peers)
    python = Rival(etcd_peer.missing() or etcd_client.missing(), wanted=peers)
    bar, peer = (BAR_RATIO, "etcd") if peers else (None, "-")
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Ours())
        etcd = rival.figures(lambda: stack.enter_context(etcd_peer.EtcdCluster()))
        python.failed = rival.failed
        for operation in ("put", "get"):
            for clients in CLIENTS:
                mine: list[Load] = []
                theirs: list[Load] = []
                alike: list[Load] = []
                for _ in range(ROUNDS):
                    mine.append(ours.load(operation, clients, seconds))
                    taken = rival.figures(_etcd_load, etcd, operation, clients, seconds)
                    theirs += [taken] if taken is not None else []
                    taken = python.figures(_python_load, etcd, operation, clients, seconds)
                    alike += [taken] if taken is not None else []
                case = f"{operation}, {clients} clients"
                told = (rival.missing, rival.failed)
                report.rows += compare(case, mine, peer, theirs or None, bar, *told)
                if peers:
                    told = (python.missing, python.failed)
                    report.rows += compare(case, mine, PYTHON, alike or None, bar, *told)
        report.rows.append(Row("under load", "worst", "elections", ours.elections(), bar=0))
    report.rows += _failover_rows(rival)
    return report


def _failover_rows(rival: Rival) -> list[Row]:
    with Ours() as ours:
        times_ms = [t * 1000 for t in ours.failovers(TRIALS)]
    median, worst = statistics.median(times_ms), max(times_ms)
    rows = [
        Row("failover", "median", "ms", median, bar=FAILOVER_MEDIAN_MS),
        Row("failover", "worst", "ms", worst, bar=FAILOVER_WORST_MS),
    ]
    theirs = rival.figures(_etcd_failovers, ETCD_TRIALS)
    if theirs is not None:
        etcd_ms = [t * 1000 for t in theirs]
        rows.append(Row("failover", "median", "ms", median, "etcd", statistics.median(etcd_ms)))
        rows.append(Row("failover", "worst", "ms", worst, "etcd", max(etcd_ms)))
    elif rival.failed:
        rows.append(Failed("failover", "median", "ms", median, "etcd", note=rival.failed))
    return rows


class Ours:
    """A cluster of three in a temporary home."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ring-bench-")
        self.home = Path(self._folder.name) / "home"

    def __enter__(self) -> Ours:
        self._ring("up", "--any-port")
        return self

    def __exit__(self, *_: object) -> None:
        self._ring("down")
        self._folder.cleanup()

    def _ring(self, *arguments: str) -> None:
        environment = {**os.environ, "RING_HOME": str(self.home)}
        subprocess.run(
            [sys.executable, "-m", "cluster", *arguments],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def load(self, operation: str, clients: int, seconds: float) -> Load:
        """One round, by a client in a process of its own."""
        answer = subprocess.run(
            [
                sys.executable,
                "-m",
                "cluster.bench.raft",
                str(self.home / "cluster.toml"),
                operation,
                str(clients),
                str(seconds),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        return Load(*json.loads(answer.stdout))

    def elections(self) -> int:
        """Terms since the first leader: none may have begun under load."""
        with Control(self.home) as control:
            rows = control.ask("status")["nodes"]
        terms = [row["says"].get("term") for row in rows]
        if None in terms:
            raise RuntimeError("a node does not say its term: nobody knows what was elected")
        return max(map(int, terms)) - 1

    def failovers(self, trials: int) -> list[float]:
        """Seconds from kill -9 of the leader to the next acknowledged write, each trial."""
        return asyncio.run(self._failovers(trials))

    async def _failovers(self, trials: int) -> list[float]:
        times = []
        async with RaftClient.connect(self.home / "cluster.toml") as client:
            for trial in range(trials):
                await client.put(b"before", b"%d" % trial)
                leader = await client.leader()
                kill = asyncio.to_thread(self._act, "kill", leader)
                began = time.perf_counter()
                await kill
                await client.put(b"after", b"%d" % trial)
                times.append(time.perf_counter() - began)
                await asyncio.to_thread(self._act, "restart", leader)
                await self._caught_up()
        return times

    def _act(self, verb: str, node: str) -> None:
        with Control(self.home) as control:
            control.ask(verb, nodes=[node])

    async def _caught_up(self) -> None:
        """Wait until all three are healthy and level, so that trials are independent."""
        while True:
            with Control(self.home) as control:
                rows = control.ask("status")["nodes"]
            lags = [row["says"].get("lag") for row in rows if row["says"].get("lag")]
            if all(row["health"] == "ok" for row in rows) and lags and not any(lags[0].values()):
                return
            await asyncio.sleep(0.1)


def _etcd_load(etcd: etcd_peer.EtcdCluster, operation: str, clients: int, seconds: float) -> Load:
    if operation == "put":
        message = etcd_peer.put_message(b"key-5000", VALUE)
        return etcd.load("Put", message, clients, seconds)
    return etcd.load("Range", etcd_peer.range_message(b"key-5000"), clients, seconds)


def _python_load(etcd: etcd_peer.EtcdCluster, operation: str, clients: int, seconds: float) -> Load:
    return etcd.load_from_python(operation, clients, seconds)


def _etcd_failovers(trials: int) -> list[float]:
    times = []
    with etcd_peer.EtcdCluster() as etcd:
        for trial in range(trials):
            began = time.perf_counter()
            killed = etcd.kill_leader()
            survivors = [i for i in range(etcd_peer.MEMBERS) if i != killed]
            while not any(etcd.put(i, "after", str(trial), 0.2) for i in survivors):
                if time.perf_counter() - began > FAILOVER_S_MAX:
                    raise RuntimeError(f"no put was acknowledged in {FAILOVER_S_MAX:g} s")
            times.append(time.perf_counter() - began)
            etcd.start(killed)
            time.sleep(2.0)
    return times


async def _client(config: str, operation: str, clients: int, seconds: float) -> Load:
    dice = random.Random(1)
    async with RaftClient.connect(config) as client:
        await client.put(b"key-0", VALUE)
        calls: dict[str, Callable[[int], Any]] = {
            "put": lambda _: client.put(b"key-%d" % dice.randrange(KEYS), VALUE),
            "get": lambda _: client.get(b"key-%d" % dice.randrange(KEYS)),
        }
        return await closed_loop(calls[operation], clients, seconds)


def main(arguments: list[str]) -> None:
    """Entry of the client's process."""
    import uvloop

    config, operation, clients, seconds = arguments
    load = uvloop.run(_client(config, operation, int(clients), float(seconds)))
    json.dump([load.operations, load.seconds, list(load.latencies_s)], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
