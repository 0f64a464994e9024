"""The end at which programs come in: a TCP port; each connection becomes a stream to the exit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from netstack.presets.bytestream import StreamSocket
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.tunnel.address import HOST
from netstack.tunnel.relay import (
    CONFIG,
    CONNECTIONS_MAX,
    READ_AHEAD,
    Relay,
    cause,
    reset,
)
from security.identity import Identity

SERVICE = "tunnel"


class Entry:
    """Listens for TCP on this machine.

    Args:
        via: the exit's UDP address.
        say: told what went wrong, a sentence a connection.
    """

    def __init__(
        self, runtime: Runtime, identity: Identity, via: Address, say: Callable[[str], None]
    ) -> None:
        self.carried = 0  # connections so far
        self._via = via
        self._say = say
        self._socket = StreamSocket(runtime, identity, service=SERVICE, config=CONFIG)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Entry via {self._via[1]} open={len(self._tasks)}>"

    @property
    def port(self) -> int:
        """The TCP port that programs connect to."""
        assert self._server is not None, "the entry is not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def address(self) -> Address:
        """Its end of the UDP path."""
        return self._socket.address

    async def start(self, port: int) -> None:
        """Take the TCP port; raises OSError."""
        await self._socket.start((HOST, 0))
        self._server = await asyncio.start_server(self._accept, HOST, port, limit=READ_AHEAD)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= CONNECTIONS_MAX:
            self._say(f"refused a connection: {CONNECTIONS_MAX} are carried already")
            reset(writer)
            return
        self._tasks.add(task)
        self.carried += 1
        try:
            await self._carry(reader, writer)
        except OSError as error:
            if (why := cause(error)) is not None:
                self._say(f"reset a connection: {why}")
        except asyncio.CancelledError:
            pass  # the entry is closed; asyncio would report it as an error
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            stream = await self._socket.connect(self._via)
        except BaseException:
            reset(writer)
            raise
        await Relay(reader, writer, stream).run()

    async def close(self) -> None:
        """Reset all connections, and release both ports."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._socket.close()
