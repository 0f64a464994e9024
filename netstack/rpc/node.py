"""What a service stands on: one socket on which it is called and calls others.

    node = RpcNode(runtime, identity, service="raft", incarnation=...)
    node.service.add("kv.put", put)
    await node.start(("127.0.0.1", 7401))

    link = node.link("n2", ("127.0.0.1", 7402), "raft")       a lasting connection to a sibling
    link.notify(frames.notify("raft", body))                  one-way; False when dropped

    client = node.client(("127.0.0.1", 7402), "raft")         calls, with redial and safe retries
    await client.call("kv.get", body)

Siblings share ONE connection a pair, so that requests of one carry the acknowledgements of the
other: the smaller name dials, the other waits to be dialled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from netstack.rpc.client import RpcClient
from netstack.rpc.connection import RpcConnection
from netstack.rpc.dialler import Dialler
from netstack.rpc.errors import NotListening, Unavailable
from netstack.rpc.service import RpcService
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from netstack.transport.errors import NobodyThere, TransportError
from netstack.transport.host import Host
from netstack.transport.peer import Peer, Stream
from security.identity import Identity

# Clients of one node that have a connection. Who calls thousands of addresses in turn need not keep
# them all; whoever waits for an answer keeps his.
CLIENTS_MAX = 1024


class RpcNode:
    """One socket, its service, and the connections on it."""

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        *,
        service: str,
        config: TransportConfig | None = None,
    ) -> None:
        self.runtime = runtime
        self.identity = identity
        self.service = RpcService(runtime.entropy(8))
        self.on_connection: list[Callable[[RpcConnection], None]] = []
        self.on_stream: Callable[[RpcConnection, Stream], None] | None = None  # raw ones of peers
        self.connections: dict[RpcConnection, None] = {}  # the oldest first
        self._links: dict[str, Link] = {}
        self._clients: dict[RpcClient, None] = {}  # that have or seek a connection
        self.closed = False
        self.host = Host(
            runtime,
            identity,
            service=service,
            config=config or TransportConfig(),
            on_peer=self._accepted,
        )

    def __repr__(self) -> str:
        return f"<RpcNode {self.identity.name} connections={len(self.connections)}>"

    async def start(self, address: Address) -> None:
        """Bind the socket; raises the endpoint's PortTaken."""
        await self.host.start(address)

    def client(self, address: Address, service: str, expect: str | None = None) -> RpcClient:
        """A caller of the service at `address`; it dials at the first call."""
        return RpcClient(self, address, service, expect)

    def connects(self, client: RpcClient) -> None:
        """A client is about to dial. The longest unused of too many lose their connections."""
        self._clients[client] = None
        excess = len(self._clients) - CLIENTS_MAX
        if excess > 0:
            idle = [other for other in self._clients if not other.busy and other is not client]
            for unused in sorted(idle, key=lambda other: other.used_at)[:excess]:
                del self._clients[unused]
                self.runtime.spawn(unused.drop_connection(), "drop an unused connection")

    def disconnects(self, client: RpcClient) -> None:
        """A client is closed."""
        self._clients.pop(client, None)

    def link(self, name: str, address: Address, service: str) -> Link:
        """The lasting connection to a sibling, one a name."""
        link = self._links.get(name)
        if link is None:
            link = self._links[name] = Link(self, name, address, service)
            for connection in self.connections:
                if connection.peer_name == name and not connection.dialled:
                    link.accepted(connection)
        return link

    async def unlink(self, name: str) -> None:
        """Give up a sibling that left the cluster."""
        link = self._links.pop(name, None)
        if link is not None:
            await link.close()

    async def dial(
        self, address: Address, service: str, expect: str | None, timeout_s: float
    ) -> RpcConnection:
        """One attempt at a new connection; raises Unavailable, or NotListening."""
        try:
            peer = await self.host.connect(
                address, service=service, expect=expect, timeout_s=timeout_s
            )
        except NobodyThere as error:
            raise NotListening(str(error)) from error
        except TransportError as error:
            raise Unavailable(str(error)) from error
        connection = self._adopt(peer)
        connection.open_lanes()
        if connection.closed is not None:
            raise Unavailable(connection.closed.message)
        return connection

    def trust(self, identity: Identity) -> None:
        """See Host.trust."""
        self.identity = identity
        self.host.trust(identity)

    async def close(self) -> None:
        """End all connections and the socket."""
        self.service.draining = self.closed = True
        for link in list(self._links.values()):
            await link.close()
        for client in list(self._clients):
            await client.close()
        for connection in list(self.connections):
            await connection.close()
        await self.host.close()

    def _accepted(self, peer: Peer) -> None:
        connection = self._adopt(peer)
        link = self._links.get(connection.peer_name)
        if link is not None:
            link.accepted(connection)

    def _adopt(self, peer: Peer) -> RpcConnection:
        connection = RpcConnection(self.runtime, peer, self.service)
        self.connections[connection] = None
        connection.on_close.append(self.connections.pop)
        connection.on_stream = self.on_stream
        for callback in self.on_connection:
            callback(connection)
        return connection


class Link:
    """The one connection to a sibling, dialled by the smaller name, renewed when it ends."""

    def __init__(self, node: RpcNode, name: str, address: Address, service: str) -> None:
        self.name = name
        self.address = address
        self.connection: RpcConnection | None = None
        self.on_up: list[Callable[[], None]] = []
        self._node = node
        self._service = service
        self._closed = False
        self._dialler: asyncio.Task[None] | None = None
        if node.identity.name < name:
            self._dialler = node.runtime.spawn(self._keep_dialled(), f"link to {name}")

    def __repr__(self) -> str:
        return f"<Link {self.name} {'up' if self.up else 'down'}>"

    @property
    def up(self) -> bool:
        """Whether a message sent now has a connection to leave by."""
        return self.connection is not None and self.connection.ready

    def notify(self, message: bytes, *, bulk: bool = False) -> bool:
        """One-way message (`frames.notify`) to the sibling; False if it was dropped.

        It comes encoded, so that one message for several siblings is encoded once.
        """
        connection = self.connection
        return connection is not None and connection.notify(message, bulk=bulk)

    @property
    def bulk_under_way(self) -> bool:
        """Whether what was sent with `bulk=True` is still on its way: it need not be sent again."""
        return self.connection is not None and self.connection.bulk_under_way

    async def call(self, method: str, body: Any, timeout_s: float) -> Any:
        """A request to the sibling over the shared connection; Unavailable when it is down."""
        if self.connection is None:
            raise Unavailable(f"no connection to {self.name}")
        return await self.connection.call(method, body, timeout_s)

    def accepted(self, connection: RpcConnection) -> None:
        """The sibling dialled us. The newest connection is the true one: older lives are dead."""
        if self._closed or self._dialler is not None:
            return
        self._use(connection)

    def _use(self, connection: RpcConnection) -> None:
        previous, self.connection = self.connection, connection
        if previous is not None and previous.closed is None:
            self._node.runtime.spawn(previous.close(), f"replaced link to {self.name}")
        for callback in self.on_up:
            callback()

    async def _keep_dialled(self) -> None:
        dialler = Dialler(self._node, self.address, self._service, self.name)
        while True:
            connection = await dialler.dial()
            ended = asyncio.Event()
            connection.on_close.append(lambda _, ended=ended: ended.set())  # type: ignore[misc]
            self._use(connection)
            await ended.wait()

    async def close(self) -> None:
        """Stop dialling and end the connection."""
        self._closed = True
        if self._dialler is not None:
            self._dialler.cancel()
        if self.connection is not None:
            await self.connection.close()
