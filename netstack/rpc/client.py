"""Calls to one address that outlive its connection: dial, dial again, and retry what is safe.

    plain          sent once; a connection lost in the middle is ConnectionLost (indefinite)
    idempotent     sent again on a new connection until the deadline: reads, and writes that say so
    once           sent again under a request id; the service runs it once (netstack.rpc.dedup)

A call that never left (nobody listening, dial timed out) is retried in every mode: it did not
happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from netstack.rpc.connection import RpcConnection
from netstack.rpc.errors import (
    ConnectionLost,
    Unavailable,
)
from netstack.rpc.schema import encode
from netstack.runtime.endpoint import Address

if TYPE_CHECKING:
    from netstack.rpc.node import RpcNode

# Between dials: short, because a restarted neighbour is back within tens of milliseconds; doubled,
# because one that is down for long should not be asked often; with jitter, lest all ask at once.
REDIAL_S_MIN, REDIAL_S_MAX = 0.02, 0.5

# One dial's limit; a loopback handshake takes 2 ms, a lossy one a few retransmissions.
DIAL_TIMEOUT_S = 2.0


class RpcClient:
    """Calls to the service at `address`, whose certificate must bear `expect` (None: any name)."""

    def __init__(self, node: RpcNode, address: Address, service: str, expect: str | None) -> None:
        self._node = node
        self._address = address
        self._service = service
        self._expect = expect
        self._connection: RpcConnection | None = None
        self._dialling: asyncio.Task[RpcConnection] | None = None
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
        deadline = now() + timeout_s
        body = encode(body)
        key: list[Any] | None = self._open_key() if once else None
        try:
            while True:
                connection = await self._connected(deadline)
                try:
                    remaining = deadline - now()
                    return await connection.call(method, body, remaining, _wire(key))
                except Unavailable:
                    if connection.closed is None:
                        raise  # the service itself said so
                except ConnectionLost:
                    if not (idempotent or (key and connection.peer_incarnation is not None)):
                        raise
                    if key is not None and key[3] is None:
                        key[3] = connection.peer_incarnation
        finally:
            if key is not None:
                self._open_sequences.discard(key[1])

    async def stream(
        self, method: str, body: Any = None, *, timeout_s: float = 3600.0
    ) -> AsyncIterator[Any]:
        """The items of a server stream; ends with ConnectionLost if the connection does."""
        connection = await self._connected(self._node.runtime.clock.now() + min(timeout_s, 5.0))
        async for item in connection.stream(method, encode(body), timeout_s):
            yield item

    async def connect(self, timeout_s: float) -> RpcConnection:
        """The open connection, dialled if there is none; raises Unavailable."""
        return await self._connected(self._node.runtime.clock.now() + timeout_s)

    async def drop_connection(self) -> None:
        """End the connection; the next call dials anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """End the connection and any dialling."""
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
        if self._dialling is None:
            self._dialling = asyncio.ensure_future(self._dial())
            self._dialling.add_done_callback(self._dialled)
        remaining = deadline - self._node.runtime.clock.now()
        try:
            async with asyncio.timeout(max(0.0, remaining)):
                return await asyncio.shield(self._dialling)
        except TimeoutError:
            whom = self._expect or self._service
            raise Unavailable(f"no answer from {whom} at {self._address}") from None

    async def _dial(self) -> RpcConnection:
        pause_s = REDIAL_S_MIN
        while True:
            try:
                return await self._node.dial(
                    self._address, self._service, self._expect, DIAL_TIMEOUT_S
                )
            except Unavailable:
                await asyncio.sleep(pause_s * (0.5 + self._node.runtime.rng.random()))
                pause_s = min(pause_s * 2, REDIAL_S_MAX)

    def _dialled(self, task: asyncio.Task[RpcConnection]) -> None:
        self._dialling = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()


def _wire(key: list[Any] | None) -> tuple[Any, ...] | None:
    return None if key is None else tuple(key)
