"""A caller's way to the chunk servers: who lives, who failed lately, and one connection each."""

from __future__ import annotations

from typing import Any, Final

from mapreduce.store.metadata import Metadata
from mapreduce.store.model import ServerRecord
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import Failed, RpcError, Unavailable
from netstack.rpc.node import RpcNode

# Who lives is asked for again after this.
FRESH_S: Final = 1.0

# One that did not answer is asked last for so long.
SUSPECT_S: Final = 5.0


class ServerLinks:
    """Calls to chunk servers by name."""

    def __init__(self, node: RpcNode, metadata: Metadata) -> None:
        self._node = node
        self._metadata = metadata
        self._now = node.runtime.clock.now
        self._servers: dict[str, ServerRecord] = {}
        self._asked_at = float("-inf")
        self._suspects: dict[str, float] = {}
        self._clients: dict[tuple[str, str, int], RpcClient] = {}

    def __repr__(self) -> str:
        return f"<ServerLinks servers={len(self._servers)} suspects={len(self._suspects)}>"

    async def servers(self, *, fresh: bool = False) -> dict[str, ServerRecord]:
        """Those that live."""
        if fresh or self._now() - self._asked_at > FRESH_S:
            self._servers = await self._metadata.servers()
            self._asked_at = self._now()
        return self._servers

    def suspects(self) -> set[str]:
        """Those that did not answer lately."""
        now = self._now()
        self._suspects = {n: at for n, at in self._suspects.items() if now - at < SUSPECT_S}
        return set(self._suspects)

    def suspect(self, name: str) -> None:
        """It did not do what it should have."""
        self._suspects[name] = self._now()

    def in_order(self, names: tuple[str, ...]) -> list[str]:
        """Whom to ask first: those that live, at random; then the others."""
        suspects = self.suspects()
        shuffled = list(names)
        self._node.runtime.rng.shuffle(shuffled)
        return sorted(shuffled, key=lambda n: (n in suspects, n not in self._servers))

    async def call(self, name: str, method: str, body: Any, timeout_s: float) -> Any:
        """One request; raises RpcError. All that chunk servers do may be asked for again."""
        server = (await self.servers()).get(name)
        if server is None:
            raise Unavailable(f"{name} does not live")
        at = (name, server.host, server.port)
        client = self._clients.get(at)
        if client is None:
            address = (server.host, server.port)
            client = self._clients[at] = self._node.client(address, server.service, name)
        try:
            return await client.call(method, body, timeout_s=timeout_s, idempotent=True)
        except RpcError as error:
            if not isinstance(error, Failed) or error.reason in ("disk-full", "disk-error"):
                self.suspect(name)
            raise

    async def close(self) -> None:
        """End the connections."""
        for client in self._clients.values():
            await client.close()
