"""Whole swarms in virtual time: real Swarm cores, real messages, and no sockets.

One seed, one history: dice, latencies and the order of events follow from it. Links have a latency
and keep order; how fast a peer gives is its own upload limit. Pieces are hashed for real, so a peer
that lies is caught as it would be. Used by the tests and by `ring torrent lab`.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import Final

from dht.torrent import messages
from dht.torrent.addresses import Address
from dht.torrent.connection import BUFFER
from dht.torrent.metainfo import Metainfo, make_info, parse_info
from dht.torrent.outputs import Check, Close, Dial, Learned, Told
from dht.torrent.shape import BLOCK
from dht.torrent.storage import block_hashes, sha1
from dht.torrent.strategies import DEFAULT
from dht.torrent.swarm import Settings, Swarm

LATENCY_S: Final = 0.005
CHUNK: Final = BUFFER // 2
FIRST_PORT: Final = 10_000


def make_content(pieces: int, piece_length: int, seed: int = 0) -> tuple[Metainfo, bytes]:
    """Content of so many pieces, the last of them short by a third, and its metainfo."""
    content = random.Random(seed).randbytes(pieces * piece_length - piece_length // 3)
    hashes = b"".join(
        hashlib.sha1(content[at : at + piece_length], usedforsecurity=False).digest()
        for at in range(0, len(content), piece_length)
    )
    return parse_info(make_info("content", [((), len(content))], piece_length, hashes)), content


class Node:
    """One peer: a swarm, its pieces, its connections."""

    def __init__(self, world: World, name: str, address: Address, swarm: Swarm) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.swarm = swarm
        self.pieces: dict[int, bytes] = {}
        self.fetched: list[int] = []  # pieces in the order in which they were verified
        self.told: list[Told] = []
        self.closed: list[str] = []  # why connections were ended here
        self.completed_at: float | None = None
        self.alive = True
        self._far: dict[int, tuple[Node, int]] = {}  # our key -> (other node, its key)
        self._wake_at = float("inf")

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.swarm!r}>"

    def block(self, piece: int, begin: int, length: int) -> bytes:
        """What it sends: a peer that lies overrides this."""
        return self.pieces[piece][begin : begin + length]

    def join(self, key: int, far: Node, far_key: int) -> None:
        """A connection is there: what is sent under `key` reaches `far` under `far_key`."""
        self._far[key] = (far, far_key)

    def flush(self) -> None:
        """Do what the swarm wants, as session.py does it."""
        if not self.alive:
            return
        swarm, world = self.swarm, self.world
        while outputs := swarm.take_outputs():
            for output in outputs:
                match output:
                    case Check():
                        self._check(output)
                    case Close(key, reason):
                        self.closed.append(reason)
                        self._send_control(key)
                        self.drop(key)
                    case Dial(address):
                        world.dial(self, address)
                    case Learned(metainfo):
                        swarm.begin(metainfo, bytearray(metainfo.piece_count), world.now)
                    case Told():
                        self.told.append(output)
        for remote in swarm.take_dirty():
            self._send(remote.key, b"".join(remote.connection.take_output()))
        while uploads := swarm.take_uploads(world.now):
            for remote, asks in uploads:
                for piece, begin, length in asks:
                    data = self.block(piece, begin, length)
                    self._send(remote.key, messages.block_head(piece, begin, length) + data)
        if swarm.complete and self.completed_at is None:
            self.completed_at = world.now
        self._arm()

    def _check(self, check: Check) -> None:
        ok = sha1(check.data) == check.expected
        if ok:
            self.pieces[check.piece] = bytes(check.data)
            self.fetched.append(check.piece)
        hashes = block_hashes(check.data) if check.again or not ok else {}
        self.swarm.checked(check.piece, ok, hashes, self.world.now)

    def _send_control(self, key: int) -> None:
        remote = self.swarm.remotes.get(key)
        if remote is not None:
            self._send(key, b"".join(remote.connection.take_output()))

    def _send(self, key: int, data: bytes) -> None:
        if key in self._far:
            far, far_key = self._far[key]
            for at in range(0, len(data), CHUNK):
                part = data[at : at + CHUNK]
                self.world.later(
                    LATENCY_S,
                    lambda part=part: far.receive(far_key, part),  # type: ignore[misc]
                )

    def receive(self, key: int, data: bytes) -> None:
        """Bytes have come."""
        remote = self.swarm.remotes.get(key)
        if self.alive and remote is not None:
            remote.connection.buffer()[: len(data)] = data
            self.swarm.received(key, len(data), self.world.now)
            self.flush()

    def drop(self, key: int) -> None:
        """End a connection at both ends."""
        self.swarm.disconnected(key, self.world.now)
        far = self._far.pop(key, None)
        if far is not None:
            self.world.later(LATENCY_S, lambda: far[0].lost(far[1]))

    def lost(self, key: int) -> None:
        """The other end is gone."""
        if self.alive and self._far.pop(key, None) is not None:
            self.swarm.disconnected(key, self.world.now)
            self.flush()

    def kill(self) -> None:
        """As kill -9: all connections end, and nothing is said."""
        self.alive = False
        for far, key in self._far.values():
            self.world.later(LATENCY_S, lambda far=far, key=key: far.lost(key))  # type: ignore[misc]
        self._far.clear()

    def _arm(self) -> None:
        at = max(self.swarm.next_deadline(), self.world.now + 1e-6)
        if at < self._wake_at or self._wake_at <= self.world.now:
            self._wake_at = at
            self.world.later(at - self.world.now, lambda: self._wake(at))

    def _wake(self, at: float) -> None:
        if self.alive and at == self._wake_at:
            self._wake_at = float("inf")
            self.swarm.on_deadline(self.world.now)
            self.flush()


class World:
    """All nodes of one swarm, and the time."""

    def __init__(self, seed: int, metainfo: Metainfo, content: bytes) -> None:
        self.metainfo = metainfo
        self.content = content
        self.now = 0.0
        self.nodes: dict[Address, Node] = {}
        self.refuses: set[Address] = set()  # who cannot be called
        self._seed = seed
        self._keys = 0
        self._order = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def __repr__(self) -> str:
        return f"<World {self.now:.3f} s nodes={len(self.nodes)}>"

    def add(
        self,
        name: str,
        *,
        seed: bool = False,
        strategy: str = DEFAULT,
        upload_limit: float = 0.0,
        magnet: bool = False,
        fast: bool = True,
        node: type[Node] = Node,
        swarm: type[Swarm] = Swarm,
    ) -> Node:
        """A peer; it knows nobody yet."""
        number = len(self.nodes)
        address = ("127.0.0.1", FIRST_PORT + number)
        info = self.metainfo
        settings = Settings(
            peer_id=f"-RL0100-{number:012d}".encode(),
            address=address,
            strategy=strategy,
            upload_limit=upload_limit,
            fast=fast,
        )
        have = bytearray((b"\1" if seed else b"\0") * info.piece_count)
        rng = random.Random(f"{self._seed}:{name}")
        brain = swarm(
            settings, info.info_hash, None if magnet else info, have, now=self.now, rng=rng
        )
        made = self.nodes[address] = node(self, name, address, brain)
        if seed:
            size = info.piece_length
            made.pieces = {
                piece: self.content[piece * size : (piece + 1) * size]
                for piece in range(info.piece_count)
            }
        made.flush()
        return made

    def introduce(self, *names: str) -> None:
        """Tell these, or all, of one another: what a tracker does."""
        chosen = [node for node in self.nodes.values() if not names or node.name in names]
        for node in chosen:
            node.swarm.learn((other.address for other in chosen), self.now)
            node.flush()

    def dial(self, caller: Node, address: Address) -> None:
        """Connect two nodes."""
        target = self.nodes.get(address)
        if target is None or not target.alive or address in self.refuses:
            caller.swarm.dial_failed(address, self.now)
            return
        self._keys += 2
        near, far = self._keys, self._keys + 1
        caller.join(near, target, far)
        target.join(far, caller, near)
        caller.swarm.connected(near, address, caller=True, now=self.now)
        source = ("127.0.0.1", 50_000 + near % 10_000)
        target.swarm.connected(far, source, caller=False, now=self.now)
        self.later(0.0, caller.flush)
        self.later(0.0, target.flush)

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call back."""
        self._order += 1
        heapq.heappush(self._events, (self.now + delay_s, self._order, call))

    def run(self, true: Callable[[], bool], limit_s: float) -> bool:
        """Go on until it is true; whether it came true within so much virtual time."""
        while not true():
            if not self._events or self._events[0][0] > limit_s:
                return False
            self.now, _, call = heapq.heappop(self._events)
            call()
        return True

    def holders(self, piece: int) -> int:
        """How many living nodes have that piece."""
        return sum(node.alive and node.swarm.picker is not None and node.swarm.picker.has(piece)
                   for node in self.nodes.values())  # fmt: skip


def fluid_bound_s(length: int, seed_rate: float, peer_rates: list[float]) -> float:
    """No swarm can be faster: the seed must send all of it once, and all must get all.

    max(F / u_s, N·F / (u_s + Σu)): Kumar and Ross, "Peer-assisted file distribution" (2006).
    """
    count = len(peer_rates)
    return max(length / seed_rate, count * length / (seed_rate + sum(peer_rates)))


BLOCKS_A_PIECE: Final = 4
PIECE_LENGTH: Final = BLOCKS_A_PIECE * BLOCK
