"""Links: what carries the bytes of one connection. TCP here; netstack's streams in netlink.py.

A link asks for nothing and decides nothing. It puts bytes into the connection's own buffer, and
tells how much; what it is given to send it queues without a copy, and says `held` while there is
more than HIGH_WATER of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from dht.torrent.addresses import Address

Bytes = bytes | memoryview

# A queue that runs dry between two turns of the loop costs speed; one that holds seconds of a slow
# peer's time makes cancels and chokes late.
HIGH_WATER: Final = 1 << 20


class Link(Protocol):
    """One connection's way to its peer."""

    def send(self, parts: Sequence[Bytes]) -> None:
        """Queue these."""

    def close(self) -> None:
        """End it: what is queued may still leave."""


class Ears(Protocol):
    """Who is told what becomes of a link."""

    def opened(self, link: Link, address: Address, *, caller: bool) -> int:
        """It is there; the key by which it is called from now on."""

    def buffer(self, key: int) -> memoryview:
        """Where its next bytes go."""

    def received(self, key: int, count: int) -> None:
        """So many were put there."""

    def held(self, key: int, held: bool) -> None:
        """Its queue is full, or is no more."""

    def ended(self, key: int) -> None:
        """It is over."""


class TcpLink(asyncio.BufferedProtocol):
    """A TCP connection. The kernel writes into the connection's own buffer."""

    def __init__(self, ears: Ears, *, caller: bool) -> None:
        self._ears = ears
        self._caller = caller
        self._key = -1
        self._transport: Any = None

    def __repr__(self) -> str:
        return f"<TcpLink {self._key}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 4)
        address = transport.get_extra_info("peername")
        self._key = self._ears.opened(self, (address[0], address[1]), caller=self._caller)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return self._ears.buffer(self._key)

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        self._ears.received(self._key, nbytes)

    def eof_received(self) -> None:
        """See asyncio.BufferedProtocol."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._ears.ended(self._key)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._ears.held(self._key, True)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._ears.held(self._key, False)

    def send(self, parts: Sequence[Bytes]) -> None:
        """See Link."""
        self._transport.writelines(parts)

    def close(self) -> None:
        """See Link. A peer that reads nothing does not keep us: it is reset."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()


class TcpNet:
    """Listens and dials by TCP."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._server: asyncio.Server | None = None

    async def start(self, address: Address) -> Address:
        """Take the port; where it listens. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: TcpLink(self._ears, caller=False), address[0], address[1], backlog=128
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def dial(self, address: Address) -> None:
        """Connect; raises OSError."""
        loop = asyncio.get_running_loop()
        make: Callable[[], TcpLink] = lambda: TcpLink(self._ears, caller=True)  # noqa: E731
        await loop.create_connection(make, *address)

    async def close(self) -> None:
        """Take no more calls."""
        if self._server is not None:
            self._server.close()
