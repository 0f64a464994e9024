"""The daemon that is a chunk server and nothing else: `python -m mapreduce.store --node c1 …`."""

from __future__ import annotations

from typing import Any, Final

from mapreduce.store.chunk_server import ChunkServer
from mapreduce.store.settings import NO_RAFT, ChunkSettings
from netstack.rpc.admin import offer_admin
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from raftd.client import RaftClient
from security.identity import Identity

SERVICE: Final = "chunks"


class ChunkService:
    """One node of the chunk store."""

    def __init__(self) -> None:
        self.node: RpcNode
        self.chunks: ChunkServer
        self._raft: RaftClient

    def __repr__(self) -> str:
        return f"<ChunkService {self.chunks!r}>"

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Bind, learn what is on the disk, and join."""
        members = {node.name: node.address for node in config.of_service("raft")}
        if not members:
            raise ConfigError(NO_RAFT)
        settings = ChunkSettings.of(config)
        transport = TransportConfig(suite=config.suite)
        self.node = RpcNode(runtime, identity, service=SERVICE, config=transport)
        self._raft = RaftClient(self.node, members)
        self.chunks = ChunkServer(runtime, self.node, self._raft, settings, service=SERVICE)
        self.chunks.offer(self.node)
        offer_admin(self.node, self)
        address = config.node(runtime.node).address
        await self.node.start(address)
        await self.chunks.start(address)

    def status(self) -> dict[str, Any]:
        """What `ring status` shows."""
        return self.chunks.status()

    def metrics(self) -> dict[str, float]:
        """Counters and gauges."""
        return self.chunks.metrics()

    def trust(self, identity: Identity) -> None:
        """The certificates have changed."""
        self.node.trust(identity)

    async def drain(self) -> None:
        """Nothing to hand over: the replicas stay, and others have them too."""

    async def stop(self) -> None:
        """Release socket and files."""
        await self.chunks.stop()
        self._raft.close()
        await self.node.close()
