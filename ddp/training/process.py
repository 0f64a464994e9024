"""The process around one elastic worker: identity, socket, record, and an end.

A rank has an identity of its own, `RUN-NAME`, issued by the cluster's authority when it first
starts: whoever may read the authority's key may add a rank. Its port is free choice; the record
tells the others. It ends when the run is done and its standard input is closed, or when that
closes: a rank never outlives who started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ddp.card import Card
from ddp.membership import Member
from ddp.own_identity import own_identity
from ddp.records import RaftRecords
from ddp.switchboard import SERVICE, transport_config
from ddp.training.errors import TrainingError
from ddp.training.job import Job
from ddp.training.worker import SILENCE_S, Worker
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.runtime import RealRuntime
from raftd.client import RaftClient
from security.errors import KeystoreError

HOST = "127.0.0.1"
# The loop must not wait 5 ms for its turn when the model or a sum is busy.
SWITCH_S = 0.0005


async def run_worker(
    job: Job,
    config: Path,
    run: str,
    name: str,
    founders: int,
    role: str,
    silence_s: float | None,
    staleness: str,
    slow_s: float,
    emit: Callable[..., None],
) -> None:
    """Train until told to end; raises TrainingError for a cluster that cannot be used."""
    sys.setswitchinterval(SWITCH_S)
    own = f"{run}-{name}"
    try:
        cluster = ClusterConfig.load(config)
        identity = own_identity(cluster.home, own, SERVICE)
    except (ConfigError, KeystoreError) as error:
        raise TrainingError(str(error)) from None
    runtime = RealRuntime(name, cluster.home / "training" / run / name)
    ended = asyncio.Event()
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        ended.set()

    runtime.on_fatal = fail
    settings = transport_config(cluster.suite)
    node = RpcNode(runtime, identity, service=SERVICE, config=settings)
    await node.start((HOST, 0))
    client = RaftClient(node, {n.name: n.address for n in cluster.of_service("raft")})
    group, card = f"run-{run}", Card.mine(own, node.host.address, None)
    me = Member(name, f"{name}/{os.getpid()}", card, healed=False, role=role)
    worker = Worker(
        runtime,
        node,
        RaftRecords(runtime, client, group),
        group,
        job,
        me,
        emit,
        founders=founders,
        silence_s=silence_s or SILENCE_S,
        staleness=staleness,
        slow_s=slow_s,
    )
    emit("started", name=name, pid=os.getpid(), port=node.host.address[1])
    await worker.start()
    async with _closing_of_stdin(ended):
        await ended.wait()
    runtime.on_fatal = None
    await worker.stop()
    await node.close()
    runtime.close()
    if failures:
        raise failures[0]


@contextlib.asynccontextmanager
async def _closing_of_stdin(ended: asyncio.Event) -> AsyncIterator[None]:
    class Reader(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            ended.set()

        def eof_received(self) -> bool:
            ended.set()
            return False

    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(Reader, sys.stdin)
    try:
        yield
    finally:
        transport.close()
