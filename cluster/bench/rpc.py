"""`ring bench rpc`: a 200-byte unary echo, 1 and 64 outstanding, beside grpcio and a bare limit.

Server and caller are two processes, as in life. Ours is encrypted and authenticated both ways; the
peers are neither, which favours them.

    python -m cluster.bench.rpc serve KIND [HOME]                prints its port
    python -m cluster.bench.rpc load KIND PORT N SECONDS [HOME]  prints a Load as JSON
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.bench import rpc_peers
from cluster.bench.closed_loop import closed_loop
from cluster.bench.harness import Load, Report, compare
from netstack.rpc.node import RpcNode
from netstack.rpc.service import Call
from netstack.runtime.runtime import RealRuntime
from security import keystore
from security.identity import Authority, Identity

PAYLOAD = b"x" * 200
ROUNDS = 3
OUTSTANDING = (1, 64)

# Issue of record for this project: 5 times grpcio, a third of the bare limit.
BARS = {"grpcio": 5.0, "msgpack over TCP": 1 / 3}
KINDS = {"ours": "ours", "grpcio": "grpc", "msgpack over TCP": "msgpack"}


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """Take all rounds, ours and the peers' in turn."""
    report = Report("rpc")
    names = ["ours", *(BARS if peers else ())]
    if importlib.util.find_spec("grpc") is None and peers:
        names.remove("grpcio")
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as folder:
        home = Path(folder)
        _make_identities(home)
        for outstanding in OUTSTANDING:
            loads: dict[str, list[Load]] = {name: [] for name in names}
            failed: dict[str, str] = {}
            for _ in range(ROUNDS):
                for name in [name for name in names if name not in failed]:
                    try:
                        loads[name].append(_round(KINDS[name], outstanding, seconds, home))
                    except (subprocess.SubprocessError, OSError, ValueError) as error:
                        if name == "ours":
                            raise
                        failed[name] = f"{name} failed: {error}"
            case = f"200 B echo, {outstanding} outstanding"
            for peer in BARS if peers else ("-",):
                theirs, bar = loads.get(peer), BARS.get(peer)
                wrong = failed.get(peer, "")
                report.rows += compare(case, loads["ours"], peer, theirs, bar, failed=wrong)
    return report


def _make_identities(home: Path) -> None:
    authority = Authority.create("bench", now=time.time(), entropy=_entropy)
    for name, service in (("server", "echo"), ("caller", "client")):
        identity = authority.issue(name, service, now=time.time(), entropy=_entropy)
        keystore.save_identity(home, identity)


def _entropy(count: int) -> bytes:
    return os.urandom(count)


def _round(kind: str, outstanding: int, seconds: float, home: Path) -> Load:
    command = [sys.executable, "-m", "cluster.bench.rpc"]
    serve = [*command, "serve", kind, str(home)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            answer = subprocess.run(
                [*command, "load", kind, port, str(outstanding), str(seconds), str(home)],
                stdout=subprocess.PIPE,
                check=True,
                timeout=seconds + 30,
            )
        finally:
            server.kill()
    return Load(*json.loads(answer.stdout))


async def _serve(kind: str, home: Path) -> None:
    if kind == "ours":
        node = _node(home, "server", "echo")
        node.service.add("echo", _echo)
        await node.start(("127.0.0.1", 0))
        port = node.host.address[1]
    elif kind == "grpc":
        port = await rpc_peers.serve_grpc()
    else:
        port = await rpc_peers.serve_msgpack()
    print(port, flush=True)
    await asyncio.Event().wait()


def _echo(body: object, call: Call) -> None:
    call.reply(body)


async def _load(kind: str, port: int, outstanding: int, seconds: float, home: Path) -> None:
    if kind == "ours":
        node = _node(home, "caller", "client")
        await node.start(("127.0.0.1", 0))
        client = node.client(("127.0.0.1", port), "echo", "server")

        async def call(_: int) -> object:
            return await client.call("echo", PAYLOAD)

        load = await closed_loop(_checked(call), outstanding, seconds)
        await node.close()
    else:
        dial = rpc_peers.call_grpc if kind == "grpc" else rpc_peers.call_msgpack
        load = await closed_loop(_checked(await dial(port, PAYLOAD)), outstanding, seconds)
    json.dump([load.operations, load.seconds, list(load.latencies_s)], sys.stdout)


def _checked(call: rpc_peers.Caller) -> rpc_peers.Caller:
    """The same call; an answer that is no echo ends the round."""

    async def checked(caller: int) -> object:
        if await call(caller) != PAYLOAD:
            raise RuntimeError("what came back is not what was sent")
        return None

    return checked


def _node(home: Path, name: str, service: str) -> RpcNode:
    identity: Identity = keystore.load_identity(home, name)
    runtime = RealRuntime(name, home / "nodes" / name)
    return RpcNode(runtime, identity, service=service)


def main(arguments: list[str]) -> None:
    """Entry of the child processes."""
    verb, kind, *rest = arguments
    if verb == "serve":
        work = _serve(kind, Path(rest[0]))
    else:
        work = _load(kind, int(rest[0]), int(rest[1]), float(rest[2]), Path(rest[3]))
    if kind == "grpc":  # grpcio's loop integration expects the standard loop
        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)


if __name__ == "__main__":
    main(sys.argv[1:])
