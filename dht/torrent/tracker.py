"""The tracker's mind, without I/O: who is in which swarm (BEP 3; scrape, BEP 48).

It knows nothing of the content: a swarm is an info-hash, and its peers are addresses that have
called within LIFE intervals. Whoever calls is given some of the others at random: a random graph is
well connected, whoever leaves it. A seed is given no seeds.

Everything is bounded: swarms, peers of a swarm, peers of an answer. When there is no room a
newcomer is refused with a sentence, and nobody who is known is pushed out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from dht.torrent.addresses import Address
from dht.torrent.errors import TrackerError
from dht.torrent.messages import PEER_ID
from dht.torrent.metainfo import HASH

if TYPE_CHECKING:
    import random

INTERVAL_S: Final = 60  # between calls; 1800 is usual where networks are not one machine
LIFE: Final = 2.5  # intervals without a call until a peer is forgotten
SWARMS_MAX: Final = 10_000
PEERS_MAX: Final = 5_000  # of a swarm
GIVEN: Final = 50  # peers in an answer, if nothing is asked for
GIVEN_MAX: Final = 200
SCRAPE_MAX: Final = 74  # hashes: what fits a UDP packet (BEP 15)

EVENTS: Final = ("", "completed", "started", "stopped")  # by BEP 15's numbers


@dataclass(frozen=True, slots=True)
class Announce:
    """One call of a peer, whichever protocol brought it."""

    info_hash: bytes
    peer_id: bytes
    address: Address
    left: int
    event: str = ""
    wanted: int = -1
    uploaded: int = 0
    downloaded: int = 0


class Found(NamedTuple):
    """Some of the others: (peer id, address) each; and how many there are."""

    peers: list[tuple[bytes, Address]]
    seeds: int
    leeches: int


class Scrape(NamedTuple):
    """Counts of one swarm. `completed`: how many have come to have it all."""

    seeds: int
    completed: int
    leeches: int


@dataclass(slots=True)
class _Peer:
    peer_id: bytes
    address: Address
    seed: bool
    heard: float


@dataclass(slots=True)
class _Swarm:
    peers: dict[Address, _Peer] = field(default_factory=dict)
    seeds: int = 0
    completed: int = 0

    def put(self, peer: _Peer) -> None:
        """There it is."""
        self.drop(peer.address)
        self.peers[peer.address] = peer
        self.seeds += peer.seed

    def drop(self, address: Address) -> None:
        """It is gone, if it was there."""
        if (peer := self.peers.pop(address, None)) is not None:
            self.seeds -= peer.seed


class Tracker:
    """All swarms."""

    def __init__(self, rng: random.Random, interval_s: int = INTERVAL_S) -> None:
        self.interval_s = interval_s
        self.announces = 0
        self._rng = rng
        self._swarms: dict[bytes, _Swarm] = {}
        self._swept = 0.0

    def __repr__(self) -> str:
        peers = sum(len(swarm.peers) for swarm in self._swarms.values())
        return f"<Tracker swarms={len(self._swarms)} peers={peers}>"

    @property
    def swarms(self) -> dict[bytes, Scrape]:
        """All swarms with their counts."""
        return {info_hash: self._count(swarm) for info_hash, swarm in self._swarms.items()}

    def announce(self, call: Announce, now: float) -> Found:
        """Note who calls, and name others; raises TrackerError."""
        if len(call.info_hash) != HASH or len(call.peer_id) != PEER_ID:
            raise TrackerError("info_hash and peer_id have 20 bytes each")
        if call.event not in EVENTS or not 0 < call.address[1] < 1 << 16:
            raise TrackerError("no such event, or no such port")
        self.announces += 1
        self._sweep(now)
        swarm = self._swarms.get(call.info_hash)
        if swarm is None:
            if call.event == "stopped":
                return Found([], 0, 0)
            if len(self._swarms) >= SWARMS_MAX:
                raise TrackerError("this tracker has as many swarms as it takes")
            swarm = self._swarms[call.info_hash] = _Swarm()
        if call.event == "stopped":
            swarm.drop(call.address)
            if not swarm.peers:
                del self._swarms[call.info_hash]
            return Found([], *self._count(swarm)[::2])
        self._note(swarm, call, now)
        seeds, _, leeches = self._count(swarm)
        return Found(self._draw(swarm, call), seeds, leeches)

    def _note(self, swarm: _Swarm, call: Announce, now: float) -> None:
        known = swarm.peers.get(call.address)
        if known is None and len(swarm.peers) >= PEERS_MAX:
            raise TrackerError("this swarm has as many peers as the tracker takes")
        if call.event == "completed" and not (known is not None and known.seed):
            swarm.completed += 1
        swarm.put(_Peer(call.peer_id, call.address, call.left == 0, now))

    def _draw(self, swarm: _Swarm, call: Announce) -> list[tuple[bytes, Address]]:
        wanted = GIVEN if call.wanted < 0 else min(call.wanted, GIVEN_MAX)
        if not wanted:
            return []
        others = [
            peer
            for address, peer in swarm.peers.items()
            if address != call.address and not (peer.seed and call.left == 0)
        ]
        chosen = self._rng.sample(others, min(wanted, len(others)))
        return [(peer.peer_id, peer.address) for peer in chosen]

    def scrape(self, hashes: list[bytes]) -> dict[bytes, Scrape]:
        """Counts of these swarms; all zero for one that nobody is in."""
        return {
            info_hash: self._count(self._swarms.get(info_hash, _Swarm()))
            for info_hash in hashes[:SCRAPE_MAX]
        }

    def _count(self, swarm: _Swarm) -> Scrape:
        return Scrape(swarm.seeds, swarm.completed, len(swarm.peers) - swarm.seeds)

    def _sweep(self, now: float) -> None:
        """Forget who has not called for long: once an interval."""
        if now - self._swept < self.interval_s:
            return
        self._swept = now
        for info_hash, swarm in list(self._swarms.items()):
            for address, peer in list(swarm.peers.items()):
                if now - peer.heard > LIFE * self.interval_s:
                    swarm.drop(address)
            if not swarm.peers:
                del self._swarms[info_hash]
