"""The end at which they come out: each stream becomes a TCP connection to the target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from netstack.presets.bytestream import ByteStream, StreamSocket
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.tunnel.entry import SERVICE
from netstack.tunnel.relay import (
    BUSY,
    CONFIG,
    CONNECTIONS_MAX,
    READ_AHEAD,
    TARGET_REFUSES,
    Relay,
    cause,
)
from security.identity import Identity

# What a target may take to accept: as long as the entry waits, less the way back.
TARGET_TIMEOUT_S = 4.0


class Exit:
    """Accepts streams of entries, and connects to `target` for each.

    Args:
        say: told what went wrong, a sentence a connection.
    """

    def __init__(
        self, runtime: Runtime, identity: Identity, target: Address, say: Callable[[str], None]
    ) -> None:
        self.carried = 0  # connections so far
        self._runtime = runtime
        self._target = target
        self._say = say
        self._socket = StreamSocket(
            runtime, identity, service=SERVICE, config=CONFIG, backlog=CONNECTIONS_MAX
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Exit to {self._target[1]} open={len(self._tasks)}>"

    @property
    def address(self) -> Address:
        """Its end of the UDP path: what entries are given."""
        return self._socket.address

    async def start(self, address: Address) -> None:
        """Take the UDP port; raises PortTaken or EndpointError."""
        await self._socket.start(address)
        self._runtime.spawn(self._accept(), "the exit's streams")

    async def _accept(self) -> None:
        while True:
            stream = await self._socket.next()
            if len(self._tasks) >= CONNECTIONS_MAX:
                self._say(f"refused a connection: {CONNECTIONS_MAX} are carried already")
                stream.abort(BUSY)
                continue
            task = self._runtime.spawn(self._carry(stream), "a connection")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, stream: ByteStream) -> None:
        self.carried += 1
        where = f"{self._target[0]}:{self._target[1]}"
        try:
            async with asyncio.timeout(TARGET_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(*self._target, limit=READ_AHEAD)
        except OSError as error:
            self._say(f"{where} does not accept: {error.strerror or 'no answer in time'}")
            stream.abort(TARGET_REFUSES)
            return
        try:
            stream.confirm()
            await Relay(reader, writer, stream).run()
        except OSError as error:
            if (why := cause(error)) is not None:
                self._say(f"reset a connection to {where}: {why}")

    async def close(self) -> None:
        """Reset all connections, and release the port."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._socket.close()
