"""One peer as a process has it: a session, calls to trackers, a ring, and what it says of itself.

A seeder is a peer that begins with everything; a peer turns seeder when it has everything. Nothing
else tells them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dht.torrent.addresses import Address
from dht.torrent.announcer import Announcer, Call
from dht.torrent.directory import RingDirectory
from dht.torrent.errors import TrackerError
from dht.torrent.link import Ears, TcpNet
from dht.torrent.messages import CLIENT, PEER_ID
from dht.torrent.metainfo import Metainfo
from dht.torrent.session import Net, Session
from dht.torrent.strategies import DEFAULT
from dht.torrent.swarm import Settings
from dht.torrent.tracker import Announce
from dht.torrent.tracker_client import TrackerClient
from netstack.runtime.runtime import Runtime

RING_S: Final = 30.0  # between two looks into the ring, a fifth of an entry's life
RING_FIRST_S: Final = 2.0  # after a look that failed; if nobody was found, twice as long each time
STOP_S: Final = 3.0  # that telling tracker and ring of our end may take
PRIVATE: Final = "this torrent is private: its peers come from its trackers, not from the ring"
ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a peer is to do.

    metainfo: None: fetch it from the peers first, as with a magnet link.
    tiers: of trackers. peers: whom to call besides.
    """

    info_hash: bytes
    folder: Path
    metainfo: Metainfo | None = None
    tiers: tuple[tuple[str, ...], ...] = ()
    peers: tuple[Address, ...] = ()
    strategy: str = DEFAULT
    upload_limit: float = 0.0
    writes: bool = True


class Peer:
    """It."""

    def __init__(
        self,
        runtime: Runtime,
        wanted: Wanted,
        over: Callable[[Ears], Net] = TcpNet,
        ring: RingDirectory | None = None,
    ) -> None:
        self.wanted = wanted
        self.trouble = ""  # why the trackers know nothing of us
        self.ring_trouble = ""  # why the ring does not
        self.in_ring = 0  # peers that it named last
        self.session = Session(runtime, wanted.folder, over, writes=wanted.writes)
        self._runtime = runtime
        self._ring = ring
        self._looks: asyncio.Task[Any] | None = None
        self._client = TrackerClient(runtime)
        self._announcer: Announcer | None = None
        self._calls = asyncio.Event()
        self._calling: asyncio.Task[Any] | None = None
        self._peer_id = (
            CLIENT
            + "".join(runtime.rng.choice(ALPHABET) for _ in range(PEER_ID - len(CLIENT))).encode()
        )

    def __repr__(self) -> str:
        return f"<Peer {self.session!r}>"

    async def start(self, address: Address) -> None:
        """Take the port, verify what is there, and join; raises OSError or StorageError."""
        await self.session.listen(address)
        wanted = self.wanted
        settings = Settings(
            self._peer_id, self.session.address, wanted.strategy, wanted.upload_limit
        )
        await self.session.start(settings, wanted.info_hash, wanted.metainfo)
        complete = self.session.swarm.complete
        now = self._runtime.clock.now()
        self._announcer = Announcer(wanted.tiers, complete=complete, now=now, rng=self._runtime.rng)
        self.session.learn(wanted.peers)
        self._calling = self._runtime.spawn(
            self._call_trackers(self._announcer), "calls to trackers"
        )
        if not complete:
            self._runtime.spawn(self._tell_completed(self._announcer), "the end of the download")
        if self._ring is not None:
            self._looks = self._runtime.spawn(self._look_into(self._ring), "looks into the ring")

    async def _call_trackers(self, announcer: Announcer) -> None:
        clock = self._runtime.clock
        while not announcer.gone:
            call = announcer.due(clock.now())
            if call is None:
                deadline = announcer.next_deadline()
                delay = None if deadline is None else max(0.0, clock.true_delay(deadline))
                self._calls.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._calls.wait(), delay)
                continue
            try:
                reply = await self._client.announce(call.url, self._announce(call))
            except TrackerError as error:
                self.trouble = str(error)
                self._runtime.events.emit("tracker.failed", url=call.url, error=str(error))
                announcer.failed(clock.now())
                continue
            self.trouble = reply.warning
            announcer.answered(call, reply, clock.now())
            self.session.learn(reply.peers)

    def _announce(self, call: Call) -> Announce:
        swarm = self.session.swarm
        return Announce(
            info_hash=self.wanted.info_hash,
            peer_id=self._peer_id,
            address=self.session.address,
            left=swarm.left,
            event=call.event,
            uploaded=swarm.giving.total,
            downloaded=swarm.downloaded,
        )

    async def _tell_completed(self, announcer: Announcer) -> None:
        await self.session.complete.wait()
        announcer.complete(self._runtime.clock.now())
        self._calls.set()

    async def _look_into(self, ring: RingDirectory) -> None:
        info_hash, here = self.wanted.info_hash, self.session.address
        clock, rng = self._runtime.clock, self._runtime.rng
        pause_s = RING_FIRST_S / 2
        while not self.session.swarm.private:  # a magnet link does not say that beforehand
            pause_s = min(2 * pause_s, RING_S)
            try:
                await ring.announce(info_hash, here, clock.wall())
                found = [peer for peer in await ring.find(info_hash, clock.wall()) if peer != here]
                self.in_ring, self.ring_trouble = len(found), ""
                self.session.learn(found)
                if found:
                    pause_s = RING_S
            except TrackerError as error:
                self.ring_trouble = str(error)
                pause_s = RING_FIRST_S
                self._runtime.events.emit("ring.failed", error=str(error))
            # Many who started together do not come back together.
            await asyncio.sleep(pause_s * rng.uniform(0.75, 1.25))
        self.ring_trouble = PRIVATE

    def status(self) -> dict[str, Any]:
        """What it says of itself: a flat map."""
        session, swarm, now = self.session, self.session.swarm, self._runtime.clock.now()
        info, remotes = swarm.info, list(swarm.remotes.values())
        have = info.piece_count - swarm.picker.left if info and swarm.picker else 0
        return {
            "trouble": str(session.failure or "") or self._troubles(),
            "role": "seeder" if swarm.complete else "peer",
            "name": info.name if info else "",
            "info_hash": swarm.info_hash.hex(),
            "address": f"{session.address[0]}:{session.address[1]}",
            "bytes": info.length if info else 0,
            "left": swarm.left,
            "pieces": info.piece_count if info else 0,
            "have": have,
            "resumed": session.resumed,
            "peers": sum(remote.connection.open for remote in remotes),
            "seeds": sum(remote.is_seed for remote in remotes),
            "in_ring": self.in_ring,
            "down_rate": round(sum(remote.gives.now(now) for remote in remotes)),
            "up_rate": round(sum(remote.takes.now(now) for remote in remotes)),
            "downloaded": swarm.downloaded,
            "uploaded": swarm.giving.total,
            "wasted": swarm.wasted,
            "banned": swarm.banned,
        }

    def _troubles(self) -> str:
        return "; ".join(trouble for trouble in (self.trouble, self.ring_trouble) if trouble)

    async def close(self) -> None:
        """Leave: tell the tracker and the ring, then end all connections."""
        if self._looks is not None:
            self._looks.cancel()
        await asyncio.gather(self._say(self._leave_tracker()), self._say(self._leave_ring()))
        await self.session.close()

    async def _say(self, goodbye: Coroutine[Any, Any, None]) -> None:
        """Within STOP_S; who did not hear it will forget us."""
        with contextlib.suppress(TrackerError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await goodbye

    async def _leave_tracker(self) -> None:
        """By the task that calls: what it says last is heard last."""
        if self._announcer is not None and self._calling is not None:
            self._announcer.leave(self._runtime.clock.now())
            self._calls.set()
            await self._calling

    async def _leave_ring(self) -> None:
        if self._ring is not None and self._looks is not None:
            here, now = self.session.address, self._runtime.clock.wall()
            await self._ring.withdraw(self.wanted.info_hash, here, now)
