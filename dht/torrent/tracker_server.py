"""The tracker on its sockets: HTTP and UDP on the same port; and the web server of the lecture."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from dht.torrent.addresses import Address
from dht.torrent.errors import TrackerError
from dht.torrent.http import Answer, HttpServer
from dht.torrent.tracker import Tracker
from dht.torrent.tracker_http import (
    fields_of,
    read_announce,
    write_failure,
    write_found,
    write_scrape,
)
from dht.torrent.tracker_udp import UdpTracker
from netstack.runtime.runtime import Runtime

TORRENT_MAX: Final = 32 << 20


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: TrackerServer) -> None:
        self._server = server
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self._server.answer_udp(data, (addr[0], addr[1]))
        if answer is not None:
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        """Somebody who asked is gone."""


class TrackerServer:
    """One tracker."""

    def __init__(self, runtime: Runtime, tracker: Tracker) -> None:
        self.tracker = tracker
        self._runtime = runtime
        self._udp = UdpTracker(tracker, runtime.entropy(32))
        self._http = HttpServer(self._answer)
        self._datagrams: asyncio.DatagramTransport | None = None

    def __repr__(self) -> str:
        return f"<TrackerServer {self.tracker!r}>"

    async def start(self, address: Address) -> Address:
        """Take the TCP port, and UDP's of the same number; raises OSError."""
        bound = await self._http.start(address)
        try:
            loop = asyncio.get_running_loop()
            self._datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=bound
            )
        except OSError:
            await self._http.close()
            raise
        return bound

    def answer_udp(self, packet: bytes, source: Address) -> bytes | None:
        """See UdpTracker."""
        return self._udp.answer(packet, source, self._runtime.clock.now())

    def _answer(self, path: str, query: str, host: str) -> Answer:
        if path == "/announce":
            return Answer(200, self._announce(query, host))
        if path == "/scrape":
            asked = fields_of(query).get(b"info_hash")
            hashes = asked if asked is not None else list(self.tracker.swarms)
            return Answer(200, write_scrape(self.tracker.scrape(hashes)))
        return Answer(404, b"a tracker: ask /announce or /scrape\n")

    def _announce(self, query: str, host: str) -> bytes:
        try:
            call, compact = read_announce(query, host)
            found = self.tracker.announce(call, self._runtime.clock.now())
        except TrackerError as error:
            return write_failure(str(error))
        return write_found(found, self.tracker.interval_s, compact=compact)

    async def close(self) -> None:
        """Release both ports."""
        if self._datagrams is not None:
            self._datagrams.close()
        await self._http.close()


def web_server(folder: Path) -> HttpServer:
    """The lecture's web server: the .torrent files of a folder, their list, and nothing else."""

    def answer(path: str, query: str, host: str) -> Answer:
        files = {file.name: file for file in folder.glob("*.torrent") if file.is_file()}
        if path == "/":
            return Answer(200, "".join(f"{name}\n" for name in sorted(files)).encode())
        file = files.get(unquote(path).removeprefix("/"))
        if file is None or file.stat().st_size > TORRENT_MAX:
            return Answer(404, b"there is no such .torrent\n")
        return Answer(200, file.read_bytes(), "application/x-bittorrent")

    return HttpServer(answer)
