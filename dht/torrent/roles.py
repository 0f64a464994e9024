"""The lecture's roles as processes in the foreground: web server, tracker, seeder, peer.

Each runs until SIGTERM or SIGINT, or until its work is done, and says once a second how it is: a
line of JSON on stdout, and the same in a file in HOME/run, where `ring torrent status` looks. The
first line says that it is ready and where; the last, why it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from dht.torrent.addresses import HOST, Address
from dht.torrent.chord_ring import directory
from dht.torrent.errors import BadTorrent, StorageError, TorrentError, TrackerError
from dht.torrent.http import get as http_get
from dht.torrent.link import TcpNet
from dht.torrent.magnet import parse as parse_magnet
from dht.torrent.metainfo import TORRENT_MAX, Metainfo, parse
from dht.torrent.netlink import over_netstack
from dht.torrent.peer import PRIVATE, Peer, Wanted
from dht.torrent.tracker import Tracker
from dht.torrent.tracker_client import TrackerClient
from dht.torrent.tracker_server import TrackerServer, web_server
from netstack.runtime.runtime import RealRuntime

OK, USAGE, NOT_IN_TIME, CONFLICT = 0, 2, 4, 5
TELL_S: Final = 1.0
SWITCH_S: Final = 0.0005  # hashing threads take the interpreter from the loop no longer than this


class Place:
    """Where a role runs: its home, its runtime, its end."""

    def __init__(self, home: Path, role: str) -> None:
        self.home = home
        self.runtime = RealRuntime(role, home / "nodes" / role)
        self.over = asyncio.Event()
        self.failure: BaseException | None = None
        self._file = home / "run" / f"{role}-{os.getpid()}.json"
        self.runtime.on_fatal = self._fatal
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.over.set)
        sys.setswitchinterval(SWITCH_S)

    def _fatal(self, error: BaseException) -> None:
        self.failure = error
        self.over.set()

    def tell(self, event: str, says: dict[str, Any]) -> None:
        """A line on stdout, and the file."""
        line = json.dumps({"event": event, "pid": os.getpid(), **says})
        print(line, flush=True)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(line + "\n")
        fresh.replace(self._file)

    async def until(self, *events: asyncio.Event, says: Callable[[], dict[str, Any]]) -> None:
        """Tell once a second until one of these, or the end."""
        waits = [asyncio.ensure_future(event.wait()) for event in (*events, self.over)]
        try:
            while True:
                done, _ = await asyncio.wait(
                    waits, timeout=TELL_S, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return
                self.tell("status", says())
        finally:
            for wait in waits:
                wait.cancel()

    async def close(self) -> None:
        """Leave no file and no task."""
        self._file.unlink(missing_ok=True)
        self.runtime.on_fatal = None
        await self.runtime.cancel_tasks()
        self.runtime.close()
        if self.failure is not None:
            raise self.failure


async def bound(what: Awaitable[Any], address: Address) -> Any:
    """Take a port; a taken one is said in one sentence."""
    try:
        return await what
    except OSError as error:
        if error.errno == errno.EADDRINUSE or "taken" in str(error):
            raise PortTaken(f"port {address[1]} is taken; choose another, or 0") from None
        raise StorageError(str(error)) from None


class PortTaken(TorrentError):
    """Somebody listens there already."""


async def tracker(home: Path, port: int, interval_s: int) -> int:
    """Run a tracker."""
    place = Place(home, "tracker")
    server = TrackerServer(place.runtime, Tracker(place.runtime.rng, interval_s))
    try:
        address = await bound(server.start((HOST, port)), (HOST, port))
        url = f"{address[0]}:{address[1]}/announce"

        def says() -> dict[str, Any]:
            counts = server.tracker.swarms.values()
            return {
                "role": "tracker",
                "address": f"{address[0]}:{address[1]}",
                "swarms": len(counts),
                "seeds": sum(count.seeds for count in counts),
                "peers": sum(count.leeches for count in counts),
                "announces": server.tracker.announces,
                "trouble": "",
            }

        place.tell("ready", says() | {"http": f"http://{url}", "udp": f"udp://{url}"})
        await place.until(says=says)
        place.tell("end", says())
        return OK
    finally:
        await server.close()
        await place.close()


async def web(home: Path, folder: Path, port: int) -> int:
    """Run the web server with the .torrent files of `folder`."""
    place = Place(home, "web")
    server = web_server(folder)
    try:
        address = await bound(server.start((HOST, port)), (HOST, port))
        says = {"role": "web", "address": f"{address[0]}:{address[1]}", "trouble": ""}
        place.tell("ready", says | {"http": f"http://{address[0]}:{address[1]}/"})
        await place.until(says=lambda: says)
        place.tell("end", says)
        return OK
    finally:
        await server.close()
        await place.close()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(TORRENT_MAX + 1)
    except OSError as error:
        raise BadTorrent(f"{path}: {error.strerror}") from None


async def source(text: str) -> Wanted:
    """What a .torrent, its URL, or a magnet link asks for; raises TorrentError."""
    nowhere = Path()
    if text.startswith("magnet:"):
        link = parse_magnet(text)
        tiers = tuple((url,) for url in link.trackers)
        return Wanted(link.info_hash, nowhere, None, tiers, link.peers)
    data = await http_get(text) if text.startswith("http:") else _read(Path(text))
    info = parse(data)
    return Wanted(info.info_hash, nowhere, info, info.tiers)


async def scrape(home: Path, info: Metainfo) -> list[dict[str, Any]]:
    """What each tracker of a torrent counts, or why it does not say."""
    place = Place(home, "scrape")
    client = TrackerClient(place.runtime)
    found: list[dict[str, Any]] = []
    try:
        for url in (url for tier in info.tiers for url in tier):
            try:
                counts = await client.scrape(url, info.info_hash)
                found.append({"url": url, **counts._asdict(), "trouble": ""})
            except TrackerError as error:
                found.append({"url": url, "trouble": str(error)})
        return found
    finally:
        await place.close()


async def run_peer(
    home: Path,
    wanted: Wanted,
    *,
    port: int,
    netstack: bool,
    ring: Path | None,
    stay_s: float,
    timeout_s: float,
) -> int:
    """Seed, or fetch and then seed for `stay_s`; the exit status.

    ring: the file of a cluster, in whose ring peers are found too.
    """
    if ring is not None and wanted.metainfo is not None and wanted.metainfo.private:
        raise BadTorrent(f"{PRIVATE}; leave --ring out")
    role = "get" if wanted.writes else "seed"
    place = Place(home, f"{role}-{wanted.info_hash.hex()[:8]}")
    try:
        over = over_netstack(place.runtime, home) if netstack else TcpNet
        async with directory(ring) if ring is not None else nullcontext() as found_in:
            peer = Peer(place.runtime, wanted, over, found_in)
            try:
                return await _peer(place, peer, port, stay_s, timeout_s)
            finally:
                await peer.close()
    finally:
        await place.close()


async def _peer(place: Place, peer: Peer, port: int, stay_s: float, timeout_s: float) -> int:
    await bound(peer.start((HOST, port)), (HOST, port))
    session = peer.session
    if not peer.wanted.writes and not session.swarm.complete:
        has, count = session.resumed, session.swarm.info
        assert count is not None
        raise StorageError(
            f"{peer.wanted.folder / count.name}: {has} of {count.piece_count} pieces are right; "
            "a seeder needs all of them (to fetch the others: get)"
        )
    place.tell("ready", peer.status())
    try:
        async with asyncio.timeout(timeout_s or None):
            await place.until(session.complete, session.stopped, says=peer.status)
    except TimeoutError:
        place.tell("end", peer.status() | {"why": f"not complete within {timeout_s:g} s"})
        return NOT_IN_TIME
    if session.failure is not None:
        raise session.failure
    if not session.complete.is_set():
        place.tell("end", peer.status() | {"why": "stopped"})
        return NOT_IN_TIME
    place.tell("complete", peer.status())
    with contextlib.suppress(TimeoutError):  # it has stayed as long as it was to
        async with asyncio.timeout(None if stay_s < 0 else stay_s):
            await place.until(session.stopped, says=peer.status)
    if session.failure is not None:
        raise session.failure
    place.tell("end", peer.status())
    return OK
