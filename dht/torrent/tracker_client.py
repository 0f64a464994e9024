"""Calling trackers, by HTTP and by UDP."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from dht.torrent import tracker_udp as udp
from dht.torrent.addresses import Address
from dht.torrent.errors import TrackerError
from dht.torrent.http import get, where
from dht.torrent.tracker import Announce, Scrape
from dht.torrent.tracker_http import (
    Reply,
    announce_url,
    read_reply,
    read_scrape,
    scrape_url,
)
from netstack.runtime.runtime import Runtime

RESEND_S: Final = 15.0  # then twice as long each time (BEP 15)
TRIES: Final = 3  # then another tracker is asked; BEP 15 would go on for an hour


class TrackerClient:
    """Calls trackers for one peer.

    Args:
        resend_s: the first time-out of UDP.
    """

    def __init__(self, runtime: Runtime, resend_s: float = RESEND_S) -> None:
        self._runtime = runtime
        self._resend_s = resend_s
        self._key = runtime.rng.getrandbits(32)

    def __repr__(self) -> str:
        return f"<TrackerClient {self._key:08x}>"

    async def announce(self, url: str, call: Announce) -> Reply:
        """Tell the tracker at `url`; raises TrackerError."""
        address = where(url)
        if url.startswith("http:"):
            return read_reply(await get(announce_url(url, call, self._key)))
        rest = await self._ask(
            address,
            udp.ANNOUNCE,
            lambda connection, transaction: udp.announce(connection, transaction, call, self._key),
        )
        return udp.read_announced(rest)

    async def scrape(self, url: str, info_hash: bytes) -> Scrape:
        """Counts of a swarm; raises TrackerError."""
        address = where(url)
        if url.startswith("http:"):
            return read_scrape(await get(scrape_url(url, info_hash)), info_hash)
        rest = await self._ask(
            address,
            udp.SCRAPE,
            lambda connection, transaction: udp.scrape(connection, transaction, info_hash),
        )
        return udp.read_scraped(rest)

    async def _ask(self, address: Address, action: int, make: Any) -> bytes:
        """One exchange, with a connection id that is fresh enough."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[bytes | OSError] = asyncio.Queue(64)
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Inbox(inbox), remote_addr=address, local_addr=("127.0.0.1", 0)
        )
        try:
            # A connection id belongs to the address that asked for it, and so to this socket.
            transaction = self._runtime.rng.getrandbits(32)
            hello = udp.connect(transaction)
            rest = await self._exchange(transport, inbox, hello, udp.CONNECT, transaction)
            connection = udp.read_connected(rest)
            transaction = self._runtime.rng.getrandbits(32)
            packet = make(connection, transaction)
            return await self._exchange(transport, inbox, packet, action, transaction)
        finally:
            transport.close()

    async def _exchange(
        self,
        transport: asyncio.DatagramTransport,
        inbox: asyncio.Queue[bytes | OSError],
        packet: bytes,
        action: int,
        transaction: int,
    ) -> bytes:
        for attempt in range(TRIES):
            transport.sendto(packet)
            try:
                async with asyncio.timeout(self._resend_s * 2**attempt):
                    while True:
                        got = await inbox.get()
                        if isinstance(got, OSError):
                            raise TrackerError(f"the tracker does not answer: {got.strerror}")
                        if (rest := udp.body(got, action, transaction)) is not None:
                            return rest
            except TimeoutError:
                continue
        raise TrackerError("the tracker does not answer")


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self, inbox: asyncio.Queue[bytes | OSError]) -> None:
        self._inbox = inbox

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self._inbox.full():
            self._inbox.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError) and not self._inbox.full():
            self._inbox.put_nowait(exc)
