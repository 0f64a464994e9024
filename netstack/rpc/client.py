"""Calls to one address that outlive its connection: dial, dial again, and retry what is safe.

    plain          sent once; a connection lost in the middle is ConnectionLost (indefinite)
    idempotent     sent again on a new connection until the deadline: reads, and writes that say so
    once           sent again under a request id; the service runs it once (netstack.rpc.dedup)

A call that never left (nobody listening, dial timed out) is retried in every mode: it did not
happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from netstack.rpc.connection import RpcConnection
from netstack.rpc.dialler import Dialler
from netstack.rpc.errors import ConnectionLost, Overloaded, Unavailable
from netstack.rpc.incoming import dialled_items
from netstack.rpc.schema import encode
from netstack.runtime.endpoint import Address

if TYPE_CHECKING:
    from netstack.rpc.node import RpcNode


class RpcClient:
    """Calls to the service at `address`, whose certificate must bear `expect` (None: any name)."""

    def __init__(self, node: RpcNode, address: Address, service: str, expect: str | None) -> None:
        self._node = node
        self._address = address
        self._service = service
        self._expect = expect
        self._connection: RpcConnection | None = None
        self._dialler = Dialler(node, address, service, expect)
        self._dialling: asyncio.Task[RpcConnection] | None = None
        self._closed = False
        self._open = 0  # calls and streams
        self.used_at = 0.0
        self._id = node.runtime.entropy(16)
        self._sequence = 0
        self._open_sequences: set[int] = set()

    def __repr__(self) -> str:
        host, port = self._address
        state = "connected" if self._ready() else "not connected"
        return f"<RpcClient {self._expect or '?'} {host}:{port} {state}>"

    async def call(
        self,
        method: str,
        body: Any = None,
        *,
        timeout_s: float = 5.0,
        idempotent: bool = False,
        once: bool = False,
    ) -> Any:
        """The answer of `method`; raises an RpcError (see errors.py for which are definite)."""
        now = self._node.runtime.clock.now
        self.used_at = now()
        deadline = self.used_at + timeout_s
        body = encode(body)
        key: list[Any] | None = self._open_key() if once else None
        lost: ConnectionLost | None = None
        self._open += 1
        try:
            while True:
                connection = await self._connected(deadline)
                try:
                    remaining = deadline - now()
                    return await connection.call(method, body, remaining, _wire(key))
                except Unavailable:
                    if connection.closed is None:
                        raise  # the service itself said so
                except ConnectionLost as error:
                    if not (idempotent or (key and connection.peer_incarnation is not None)):
                        raise
                    lost = error
                    if key is not None and key[3] is None:
                        key[3] = connection.peer_incarnation
        except (Unavailable, Overloaded) as refusal:
            if lost is None:
                raise
            # That this try did not happen says nothing about those before it.
            raise lost from refusal
        finally:
            self._open -= 1
            if key is not None:
                self._open_sequences.discard(key[1])

    def begin(self, method: str, body: Any, timeout_s: float) -> asyncio.Future[Any] | None:
        """A plain call that is under way when this returns (see RpcConnection.begin).

        None: it cannot leave at once, for want of a connection or of room on it.
        """
        connection = self._connection
        if connection is None or not connection.ready or connection.congested:
            return None
        future = connection.begin(method, encode(body), timeout_s)
        self.begins()
        future.add_done_callback(lambda _: self.ends())
        return future

    def stream(
        self, method: str, body: Any = None, *, timeout_s: float = 3600.0
    ) -> AsyncGenerator[Any, None]:
        """The items of a server stream; ends with ConnectionLost if the connection does."""
        return dialled_items(self, method, encode(body), timeout_s)

    def begins(self) -> None:
        """Somebody waits for it from now on; `ends` when he does no more."""
        self.used_at = self._node.runtime.clock.now()
        self._open += 1

    def ends(self) -> None:
        """See `begins`."""
        self._open -= 1

    async def connect(self, timeout_s: float) -> RpcConnection:
        """The open connection, dialled if there is none; raises Unavailable."""
        return await self._connected(self._node.runtime.clock.now() + timeout_s)

    @property
    def busy(self) -> bool:
        """Whether anybody waits for it."""
        return self._open > 0

    async def drop_connection(self) -> None:
        """End the connection, and any dialling: calls that wait for it are Unavailable.

        The next call dials anew.
        """
        if self._dialling is not None:
            self._dialling.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """End the connection and any dialling; calls that wait, and later ones, are Unavailable."""
        self._closed = True
        self._node.disconnects(self)
        if self._dialling is not None:
            self._dialling.cancel()
        if self._connection is not None:
            await self._connection.close()

    def _open_key(self) -> list[Any]:
        self._sequence += 1
        self._open_sequences.add(self._sequence)
        return [self._id, self._sequence, min(self._open_sequences), None]

    def _ready(self) -> bool:
        return self._connection is not None and self._connection.ready

    async def _connected(self, deadline: float) -> RpcConnection:
        if self._connection is not None and self._connection.ready:
            return self._connection
        if not (self._closed or self._node.closed):
            if self._dialling is None or self._dialling.done():
                self._node.connects(self)
                self._dialling = asyncio.ensure_future(self._dial())
                self._dialling.add_done_callback(_ended)
            dialling, remaining = self._dialling, deadline - self._node.runtime.clock.now()
            await asyncio.wait((dialling,), timeout=max(0.0, remaining))
            if dialling.done() and not dialling.cancelled():
                return dialling.result()
        raise Unavailable(f"no connection to {self._expect or self._service} at {self._address}")

    async def _dial(self) -> RpcConnection:
        self._connection = await self._dialler.dial(patient=False)
        return self._connection


def _ended(dialling: asyncio.Task[RpcConnection]) -> None:
    """Its error, if it has one, is for those who wait for it; there may be none any more."""
    if not dialling.cancelled():
        dialling.exception()


def _wire(key: list[Any] | None) -> tuple[Any, ...] | None:
    return None if key is None else tuple(key)
