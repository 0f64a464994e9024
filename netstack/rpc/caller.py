"""The side that only calls: an operator's identity on a socket of its own, without a daemon.

    async with caller(ClusterConfig.load(path), "cli") as node:
        client = node.client(address, service)

What services call `Client.connect` stands on this.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig
from netstack.runtime.runtime import RealRuntime
from netstack.transport.config import TransportConfig
from security import keystore

# What the certificates of those who only call say that they are.
SERVICE = "client"


@contextlib.asynccontextmanager
async def caller(
    config: ClusterConfig, identity: str, transport: TransportConfig | None = None
) -> AsyncIterator[RpcNode]:
    """A started node that calls under one of the cluster's identities; raises KeystoreError."""
    own = keystore.load_identity(config.home, identity)
    runtime = RealRuntime(identity, config.home / "nodes" / identity)
    transport = transport or TransportConfig(suite=config.suite)
    node = RpcNode(runtime, own, service=SERVICE, config=transport)
    try:
        await node.start(("127.0.0.1", 0))
        yield node
    finally:
        await node.close()
        await runtime.cancel_tasks()
        runtime.close()
