"""A client on a socket of its own, for as long as somebody wants it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from dht.config import ACK_DELAY_S, SERVICE
from netstack.rpc.caller import caller
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig
from netstack.runtime.endpoint import Address
from netstack.transport.config import TransportConfig

Client = TypeVar("Client")


@contextlib.asynccontextmanager
async def connected(
    make: Callable[[RpcNode, dict[str, Address]], Client], config: Path, identity: str
) -> AsyncIterator[Client]:
    """What `make` makes of a started node and the peers' addresses in the cluster's file.

    Raises ConfigError or KeystoreError. Does not wait for the cluster: the first call does.
    """
    cluster = ClusterConfig.load(config)
    transport = TransportConfig(suite=cluster.suite, max_ack_delay_s=ACK_DELAY_S)
    async with caller(cluster, identity, transport) as node:
        yield make(node, {n.name: n.address for n in cluster.of_service(SERVICE)})
