"""`ring bench dht`: puts and gets in a ring of 32 and of 64 peers, beside PyPI's kademlia.

Both sides alike: all peers in one process, each with its own socket; the load in another, by a
client that holds no data itself (a kademlia node that keeps nothing). Values of 100 bytes; gets
are of keys put before. Ours is encrypted, and a put is synced to three disks before it is
acknowledged; kademlia sends in the clear, keeps 20 copies in memory, and calls a set done when one
arrived.

    python -m cluster.bench.dht serve KIND COUNT HOME                 prints a port when ready
    python -m cluster.bench.dht load KIND PORT HOME SECONDS           prints what it found as JSON
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from cluster.bench import dht_peers
from cluster.bench.closed_loop import closed_loop
from cluster.bench.harness import Load, Report, Row, compare
from cluster.topology import free_ports
from dht.client import DhtClient
from dht.server import DhtService
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.daemon import tune_interpreter
from netstack.runtime.runtime import RealRuntime
from security import keystore
from security.identity import Authority

ROUNDS: Final = 3
PEERS: Final = (32, 64)
OUTSTANDING: Final = (1, 16)
VALUE: Final = bytes(100)

# Least ratio to kademlia's rate, and to its median latency.
BARS: Final = {"put": 5.0, "get": 1.0}

# Keys that are put before they are read, and that the puts of a round go through.
KEYS: Final = 200

# Handshakes that the peers of the one process make at a time, all together.
DIALS: Final = 4

# How long a ring of 64 may take to be ready on a busy machine.
READY_S: Final = 180.0

Put = Callable[[bytes], Awaitable[object]]


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """Take all rounds, ours and kademlia's in turn."""
    report = Report("dht")
    kinds = ["ours", *(["kademlia"] if peers else [])]
    if peers and importlib.util.find_spec("kademlia") is None:
        kinds.remove("kademlia")
    for count in PEERS:
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for _ in range(ROUNDS):
            for kind in kinds:
                found[kind].append(_round(kind, count, seconds))
        for verb in ("put", "get"):
            for outstanding in OUTSTANDING:
                case = f"{count} peers, {verb}, {outstanding} outstanding"
                loads = {
                    kind: [Load(*answer[f"{verb}/{outstanding}"]) for answer in answers]
                    for kind, answers in found.items()
                }
                peer = "kademlia" if peers else "-"
                bar = BARS[verb] if peers else None
                rows = compare(case, loads["ours"], peer, loads.get("kademlia"), bar)
                report.rows += _latency_bar(rows) if verb == "get" and peers else rows
        hops = sorted(hops for answer in found["ours"] for hops in answer["hops"])
        case = f"{count} peers, look-up"
        report.rows.append(Row(case, "hops", "mean", sum(hops) / len(hops)))
    return report


def _latency_bar(rows: list[Row]) -> list[Row]:
    """A get's median is held against the peer's too."""
    from dataclasses import replace

    return [replace(row, bar=BARS["get"]) if row.metric == "p50" else row for row in rows]


def _round(kind: str, count: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "cluster.bench.dht"]
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as home:
        serve = [*command, "serve", kind, str(count), home]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = server.stdout.readline().strip()
                if not port:
                    raise RuntimeError(f"the {kind} peers did not start")
                answer = subprocess.run(
                    [*command, "load", kind, port, home, str(seconds)],
                    stdout=subprocess.PIPE,
                    check=True,
                    timeout=len(OUTSTANDING) * 2 * (seconds + 5) + 4 * READY_S,
                )
            finally:
                server.kill()
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


# -- ours


def make_cluster(home: Path, count: int) -> ClusterConfig:
    """The file, the authority and the identities of so many peers."""
    names = [f"d{i}" for i in range(1, count + 1)]
    nodes = tuple(
        NodeConfig(name, "dht", "127.0.0.1", port)
        for name, port in zip(names, free_ports(count), strict=True)
    )
    settings = {"dht": {"vnodes": 1, "timeout_ms": 2000}}
    config = ClusterConfig("bench", os.urandom(8).hex(), "AESGCM", 7400, nodes, settings, home)
    authority = Authority.create(config.id, now=time.time(), entropy=os.urandom)
    for name, service in (*((name, "dht") for name in names), ("cli", "client")):
        identity = authority.issue(name, service, now=time.time(), entropy=os.urandom)
        keystore.save_identity(home, identity)
    (home / "cluster.toml").write_text(config.dump())
    return ClusterConfig.load(home / "cluster.toml")


async def _serve_ours(count: int, home: Path) -> int:
    config = make_cluster(home, count)
    services = []
    turns = asyncio.Semaphore(DIALS)
    for node in config.nodes:
        runtime = RealRuntime(node.name, home / "nodes" / node.name)
        identity = keystore.load_identity(home, node.name)
        service = DhtService(turns)
        await service.start(runtime, identity, config)
        services.append(service)
    deadline = time.monotonic() + READY_S
    while any(s.status()["settled"] < 1 or s.status()["trouble"] for s in services):
        if time.monotonic() > deadline:
            raise RuntimeError("the ring was not ready in time")
        await asyncio.sleep(0.1)
    # The services live in their runtimes' tasks, which the loop holds.
    return config.nodes[0].port


async def _load_ours(home: Path, seconds: float) -> dict[str, Any]:
    async with DhtClient.connect(home / "cluster.toml") as client:
        found = await measure(
            lambda key: client.put(key, VALUE, timeout_s=READY_S),
            lambda key: client.get(key, timeout_s=READY_S),
            seconds,
        )
        hops = [len((await client.lookup(b"look-up %d" % i)).hops) for i in range(200)]
    return {**found, "hops": hops}


async def measure(put: Put, get: Put, seconds: float) -> dict[str, Any]:
    """All loads of a round, by what a put and a get are."""
    dice = random.Random(1)
    keys = [b"key %d" % i for i in range(KEYS)]
    for key in keys:
        await put(key)
    found: dict[str, Any] = {}
    for verb, operation in (("put", put), ("get", get)):
        for outstanding in OUTSTANDING:

            async def one(_: int, operation: Put = operation) -> None:
                answer = await operation(dice.choice(keys))
                if answer is None or answer is False:
                    raise RuntimeError("a key was not there, or was not kept")

            load = await closed_loop(one, outstanding, seconds)
            found[f"{verb}/{outstanding}"] = [
                load.operations,
                load.seconds,
                list(load.latencies_s),
            ]
    return found


def main(arguments: list[str]) -> None:
    """Entry of the child processes."""
    import uvloop

    verb, kind, *rest = arguments

    async def serve() -> None:
        tune_interpreter()  # as every daemon does; both sides alike
        count, home = int(rest[0]), Path(rest[1])
        ours = kind == "ours"
        port = await (_serve_ours(count, home) if ours else dht_peers.serve_kademlia(count))
        print(port, flush=True)
        await asyncio.Event().wait()

    async def load() -> None:
        port, home, seconds = int(rest[0]), Path(rest[1]), float(rest[2])
        if kind == "ours":
            found = await _load_ours(home, seconds)
        else:
            put, get = await dht_peers.kademlia_client(port, VALUE)
            found = await measure(put, get, seconds)
        json.dump(found, sys.stdout)

    uvloop.run(serve() if verb == "serve" else load())


if __name__ == "__main__":
    main(sys.argv[1:])
