"""The kinds of `ring bench transport`: ours and what people use today, all behind one shape.

A kind serves and dials. What comes of it is a stream of bytes each way:

    await stream.write(data)     waits for room: a writer is never ahead by more than a buffer
    await stream.read()          what there is; b"" at the end

ours          encrypted, both ends proven: 1,200 bytes a packet without and with trains (GSO, GRO),
              and at the path's discovered MTU
aioquic       QUIC in Python: TLS 1.3, its own defaults, 1,200 bytes a packet
tls, tcp      the kernel's TCP through uvloop's streams, with TLS 1.3 and without
kcp           a reliable transport in C with a Python face; 1,400 bytes, no encryption, no control
              of congestion, windows of 1,024 packets; who it talks to is not proven
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol, cast

from netstack.runtime.runtime import RealRuntime
from netstack.transport.config import BASE_MTU, MAX_DATAGRAM, TransportConfig
from netstack.transport.host import Host
from netstack.transport.peer import Peer, Stream
from security import keystore


class Bytes(Protocol):
    """One stream, whatever carries it."""

    async def write(self, data: bytes) -> None:
        """Take it; wait while there is too much."""

    async def read(self) -> bytes:
        """What has come; b"" at the end."""


Handler = Callable[[Bytes], Awaitable[None]]
Opener = Callable[[], Awaitable[Bytes]]

ALPN: Final = "bench"
KCP_WINDOW: Final = 1024
KCP_MTU: Final = 1400


# -- ours


OURS: Final = {
    "ours 1200": (BASE_MTU, False),
    "ours 1200 trains": (BASE_MTU, True),
    "ours mtu": (MAX_DATAGRAM, True),
}


class _Ours:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.write = stream.write
        self.read = stream.read


def _host(kind: str, name: str, home: Path, congestion: str = "", **options: Any) -> Host:
    mtu, trains = OURS[kind]
    identity = keystore.load_identity(home, name)
    runtime = RealRuntime(name, home / "nodes" / name, trains=trains)
    config = TransportConfig(max_mtu=mtu)
    if congestion:
        config = replace(config, congestion=congestion)
    return Host(runtime, identity, service="bench", config=config, **options)


async def _serve_ours(kind: str, home: Path, handler: Handler) -> int:
    tasks = set()

    def opened(stream: Stream) -> None:
        task = asyncio.ensure_future(handler(_Ours(stream)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def known(peer: Peer) -> None:
        peer.on_stream = opened

    host = _host(kind, "server", home, on_peer=known)
    await host.start(("127.0.0.1", 0))
    return host.address[1]


async def dial_ours(kind: str, home: Path, port: int, congestion: str = "") -> Opener:
    """A connection of ours; opens streams."""
    host = _host(kind, "caller", home, congestion)
    await host.start(("127.0.0.1", 0))
    peer = await host.connect(("127.0.0.1", port), service="bench", expect="server")

    async def opener() -> Bytes:
        return _Ours(peer.open_stream())

    return opener


# -- TCP, with TLS and without


class _Tcp:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read(self) -> bytes:
        return await self._reader.read(1 << 18)


def _context(home: Path, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if server:
        context.load_cert_chain(home / "tls.pem", home / "tls.key")
    else:
        context.check_hostname = False
        context.load_verify_locations(home / "tls.pem")
    return context


async def _serve_tcp(kind: str, home: Path, handler: Handler) -> int:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(_Tcp(reader, writer))

    context = _context(home, server=True) if kind == "tls" else None
    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context, limit=1 << 20)
    return int(server.sockets[0].getsockname()[1])


async def _dial_tcp(kind: str, home: Path, port: int) -> Opener:
    context = _context(home, server=False) if kind == "tls" else None

    async def opener() -> Bytes:
        return _Tcp(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 20))

    return opener


# -- aioquic


async def _serve_aioquic(home: Path, handler: Handler) -> int:
    from aioquic.asyncio.server import serve
    from aioquic.quic.configuration import QuicConfiguration

    tasks = set()

    def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handler(_Tcp(reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    configuration = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    configuration.load_cert_chain(home / "tls.pem", home / "tls.key")
    server = await serve("127.0.0.1", 0, configuration=configuration, stream_handler=opened)
    transport = cast("Any", server)._transport
    return int(transport.get_extra_info("sockname")[1])


async def dial_aioquic(home: Path, port: int) -> Opener:
    """A connection of aioquic's; opens streams."""
    from aioquic.asyncio.client import connect
    from aioquic.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(is_client=True, alpn_protocols=[ALPN])
    configuration.load_verify_locations(str(home / "tls.pem"))
    configuration.server_name = "localhost"
    entered = connect("127.0.0.1", port, configuration=configuration)
    connection = await entered.__aenter__()

    async def opener() -> Bytes:
        return _Quic(entered, connection)

    return opener


class _Quic:
    """aioquic's writer never waits: its buffer is bounded here, by what is not acknowledged yet."""

    BUFFER: Final = 1 << 20

    def __init__(self, keep: Any, connection: Any) -> None:
        self._keep, self._connection = keep, connection
        self._reader: Any = None

    async def write(self, data: bytes) -> None:
        if self._reader is None:
            # It counts a stream only once something was written to it.
            self._reader, self._writer = await self._connection.create_stream()
            self._id = self._writer.get_extra_info("stream_id")
        self._writer.write(data)
        sender = self._connection._quic._streams[self._id].sender
        while len(sender._buffer) > self.BUFFER:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0)

    async def read(self) -> bytes:
        return cast("bytes", await self._reader.read(1 << 18))


# -- kcp


class _Kcp(asyncio.DatagramProtocol):
    """One conversation."""

    TICK_S: Final = 0.01

    def __init__(self, address: tuple[str, int] | None, opened: Handler | None) -> None:
        from kcp.extension import KCP

        self._address, self._opened = address, opened
        self._core = KCP(7, max_transmission=KCP_MTU, no_delay=True, update_interval=10)
        self._core.set_performance_options(True, 10, 2, True)
        self._core.set_window_size(KCP_WINDOW, KCP_WINDOW)
        self._core.include_outbound_handler(lambda _, data: self._send(data))
        self._messages: deque[bytes] = deque()
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._due = False
        self._began = time.monotonic()
        self._task: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._tick()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._address is None:
            self._address = addr
            assert self._opened is not None
            self._task = asyncio.ensure_future(self._opened(self))
        self._core.receive(data)
        for message in self._core.get_all_received():
            self._messages.append(bytes(message))
        if self._messages:
            self._news.set()
        if not self._due:
            # Once for all that has come in this turn of the loop: a flush walks the whole window.
            self._due = True
            asyncio.get_running_loop().call_soon(self._update)

    def _send(self, data: bytes) -> None:
        self._transport.sendto(bytes(data), self._address)

    def _tick(self) -> None:
        self._update()
        asyncio.get_running_loop().call_later(self.TICK_S, self._tick)

    def _update(self) -> None:
        self._due = False
        self._core.update(int((time.monotonic() - self._began) * 1000))
        self._core.flush()
        if self._core.get_outbound_packets() < KCP_WINDOW:
            self._room.set()

    async def write(self, data: bytes) -> None:
        # A message has 127 fragments at the most, and a fragment 24 bytes of header.
        for at in range(0, len(data), 65_536):
            part = data[at : at + 65_536]
            self._core.enqueue(part)
            if self._core.get_outbound_packets() >= KCP_WINDOW:
                self._update()
                self._room.clear()
                await self._room.wait()
        self._core.flush()

    async def read(self) -> bytes:
        while not self._messages:
            self._news.clear()
            await self._news.wait()
        return self._messages.popleft()


async def _serve_kcp(handler: Handler) -> int:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Kcp(None, handler), ("127.0.0.1", 0)
    )
    return int(transport.get_extra_info("sockname")[1])


async def _dial_kcp(port: int) -> Opener:
    async def opener() -> Bytes:
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Kcp(("127.0.0.1", port), None), ("127.0.0.1", 0)
        )
        return protocol

    return opener


# -- by name


async def serve(kind: str, home: Path, handler: Handler) -> int:
    """Serve streams of `kind`; returns the port."""
    if kind in OURS:
        return await _serve_ours(kind, home, handler)
    if kind in ("tcp", "tls"):
        return await _serve_tcp(kind, home, handler)
    return await (_serve_aioquic(home, handler) if kind == "aioquic" else _serve_kcp(handler))


async def dial(kind: str, home: Path, port: int) -> Opener:
    """What opens streams of `kind` to that server."""
    if kind in OURS:
        return await dial_ours(kind, home, port)
    if kind in ("tcp", "tls"):
        return await _dial_tcp(kind, home, port)
    return await (dial_aioquic(home, port) if kind == "aioquic" else _dial_kcp(port))
