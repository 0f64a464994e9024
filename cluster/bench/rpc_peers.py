"""The other side of `ring bench rpc`: what people use today, doing the same 200-byte echo.

grpc       grpcio's asyncio server and channel, generic handlers, no protobuf work, no TLS
msgpack    the limit: 4-byte length and msgpack on a uvloop TCP protocol; no encryption, no
           deadlines, no flow control; one write a message
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgpack

METHOD = "/bench.Echo/Echo"
Caller = Callable[[int], Awaitable[object]]


async def serve_grpc() -> int:
    """Start a grpcio echo server; returns its port."""
    import grpc

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    handler = grpc.method_handlers_generic_handler(
        "bench.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = int(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    # The server object must outlive this function; the loop's task is its only holder.
    asyncio.get_running_loop().create_task(server.wait_for_termination()).set_name("grpc server")
    return port


async def call_grpc(port: int, payload: bytes) -> Caller:
    """A caller of the grpcio server."""
    import grpc

    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    echo = channel.unary_unary(METHOD)

    async def call(_: int) -> object:
        return await echo(payload)

    return call


class _Framed(asyncio.Protocol):
    """Length-prefixed msgpack; `answered` gets each decoded message."""

    def __init__(self, answered: Callable[[_Framed, Any], None]) -> None:
        self._answered = answered
        self._buffer = b""
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's class of that name.
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        offset, buffer = 0, self._buffer
        while len(buffer) - offset >= 4:
            (length,) = struct.unpack_from(">I", buffer, offset)
            if len(buffer) - offset - 4 < length:
                break
            self._answered(self, msgpack.unpackb(buffer[offset + 4 : offset + 4 + length]))
            offset += 4 + length
        self._buffer = buffer[offset:]

    def send(self, message: Any) -> None:
        body = msgpack.packb(message)
        assert self.transport is not None
        self.transport.write(struct.pack(">I", len(body)) + body)


async def serve_msgpack() -> int:
    """Start the length-prefixed msgpack echo server; returns its port."""
    server = await asyncio.get_running_loop().create_server(
        lambda: _Framed(lambda connection, message: connection.send(message)), "127.0.0.1", 0
    )
    return int(server.sockets[0].getsockname()[1])


async def call_msgpack(port: int, payload: bytes) -> Caller:
    """A caller of the msgpack server: one connection, replies matched by id."""
    loop = asyncio.get_running_loop()
    waiting: dict[int, asyncio.Future[Any]] = {}
    counter = 0

    def answered(_: _Framed, message: Any) -> None:
        waiting.pop(message[0]).set_result(message[1])

    _, connection = await loop.create_connection(lambda: _Framed(answered), "127.0.0.1", port)

    async def call(_: int) -> object:
        nonlocal counter
        counter += 1
        future = waiting[counter] = loop.create_future()
        connection.send((counter, payload))
        return await future

    return call
