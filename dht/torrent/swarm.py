"""One torrent at one peer, without I/O: connections, what to ask, whom to give to.

                 bytes                                        bytes
    peer A ────────────> ┌ connection ┐   picker: what of whom  ┌ connection ┐ ───────> peer B
           <──────────── └────────────┘   choker: to whom       └────────────┘ <───────
                               │ Block          book: whom else       ^ blocks that were asked for
                               v                                      │
                       piece buffer ── Check ──> disk, in a thread ───┘

The shell (session.py) moves bytes and does what `take_outputs` says; the simulation
(simulation.py) does the same in virtual time. The life of a piece: its blocks are copied into one
buffer, the shell hashes and writes it, and only after `checked` is it ours: it is told to others,
and given to them. So nobody ever gets from us what we have not verified.

Limits: CONNECTIONS_MAX peers, REQUESTS_MAX requests of each, CHECKING_MAX bytes that wait for the
disk (then nothing more is asked for). Who breaks the protocol is closed; who sends wrong bytes is
banned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dht.torrent import events, pex
from dht.torrent.addresses import Address
from dht.torrent.bencode import Value
from dht.torrent.book import AddressBook
from dht.torrent.choker import ROUND_S
from dht.torrent.connection import PeerConnection
from dht.torrent.errors import BadTorrent, ProtocolViolation
from dht.torrent.giving import Giving
from dht.torrent.messages import Handshake, allowed_fast_set
from dht.torrent.metadata import MetadataFetch, answer
from dht.torrent.metainfo import Metainfo, parse_info
from dht.torrent.outputs import Check, Close, Dial, Learned, Output, Told
from dht.torrent.picker import Ask, Picker, picker
from dht.torrent.remote import SNUBS_MAX, Remote
from dht.torrent.strategies import DEFAULT

if TYPE_CHECKING:
    import random

CONNECTIONS_MAX: Final = 50
DIALS_MAX: Final = 8  # at once
CHECKING_MAX: Final = 64 << 20  # bytes of pieces that wait for the disk
USELESS_S: Final = 600.0  # it chokes us and wants nothing
TICK_S: Final = 1.0
ALLOWED_FAST: Final = 7
POOL_MAX: Final = 8  # piece buffers that are kept for the next pieces


@dataclass(frozen=True, slots=True)
class Settings:
    """What one peer is told at its start.

    upload_limit: bytes a second to all peers together; 0: none.
    """

    peer_id: bytes
    address: Address
    strategy: str = DEFAULT
    upload_limit: float = 0.0
    fast: bool = True
    connections: int = CONNECTIONS_MAX


class Swarm:
    """The brain of one peer in one swarm.

    Args:
        info: None with a magnet link: then it is fetched from the peers first.
        have: one byte a piece: what was verified before.
    """

    def __init__(
        self,
        settings: Settings,
        info_hash: bytes,
        info: Metainfo | None,
        have: bytearray | None,
        *,
        now: float,
        rng: random.Random,
    ) -> None:
        self.settings = settings
        self.info_hash = info_hash
        self.info = info
        self.rng = rng
        self.remotes: dict[int, Remote] = {}
        self._dirty: dict[int, None] = {}  # who may have something to be told
        self.book = AddressBook(settings.address)
        self.giving = Giving(self.remotes, self._dirty, settings.upload_limit, now=now, rng=rng)
        self.picker: Picker | None = None
        self.downloaded = self.wasted = 0
        self.banned = 0
        self._fetch = MetadataFetch(info_hash)
        self._outputs: list[Output] = []
        self._buffers: dict[int, bytearray] = {}
        self._pool: list[bytearray] = []
        self._checking = 0
        self._hashes: dict[int, dict[int, tuple[int, bytes]]] = {}  # of blocks that were wrong
        self._dialling: set[Address] = set()
        self._hungry = False  # something may be asked of others now
        self._next_round = now + ROUND_S
        self._next_tick = now + TICK_S
        if info is not None:
            self._begin(info, have or bytearray(info.piece_count))

    def __repr__(self) -> str:
        return f"<Swarm {self.info_hash.hex()[:8]} {self.picker!r} peers={len(self.remotes)}>"

    def _begin(self, info: Metainfo, have: bytearray) -> None:
        self.info = info
        self.picker = picker(info.shape, self.rng, self.settings.strategy, have)

    # -- what others ask

    @property
    def complete(self) -> bool:
        """Whether everything is verified: we are a seed."""
        return self.picker is not None and not self.picker.left

    @property
    def left(self) -> int:
        """Bytes that are missing, to tell the tracker."""
        if self.info is None or self.picker is None:
            return 1
        return min(self.info.length, self.picker.left * self.info.piece_length)

    @property
    def private(self) -> bool:
        """Whether peers may come from the tracker only (BEP 27)."""
        return self.info is not None and self.info.private

    def take_outputs(self) -> list[Output]:
        """What the shell must do."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_dirty(self) -> list[Remote]:
        """Connections that have something to say."""
        found = [self.remotes.get(key) for key in self._dirty]
        self._dirty.clear()
        return [remote for remote in found if remote and remote.connection.has_output]

    def take_uploads(self, now: float) -> list[tuple[Remote, list[Ask]]]:
        """Blocks to send: in turn to all who wait, as far as the limit and their sockets go."""
        return self.giving.take(now)

    def next_deadline(self) -> float:
        """When to call `on_deadline`."""
        return min(self._next_tick, self.giving.next_deadline())

    # -- connections

    def connected(self, key: int, address: Address, *, caller: bool, now: float) -> Remote:
        """There is a connection, and `key` is its name from now on."""
        says: dict[bytes, Value] = {b"p": self.settings.address[1]}
        if self.info is not None:
            says[b"metadata_size"] = len(self.info.info)
        ours = Handshake(self.info_hash, self.settings.peer_id, fast=self.settings.fast)
        shape = self.info.shape if self.info else None
        connection = PeerConnection(ours, shape, caller=caller, now=now, extension_handshake=says)
        remote = self.remotes[key] = Remote(key, connection, address, now=now)
        if caller:
            self._dialling.discard(address)
        self._dirty[key] = None
        if len(self.remotes) > self.settings.connections:
            self._close(remote, "too many connections")
        return remote

    def dial_failed(self, address: Address, now: float) -> None:
        """Nobody answers there."""
        self._dialling.discard(address)
        self.book.ended(address, now)

    def disconnected(self, key: int, now: float) -> None:
        """The connection is over."""
        remote = self.remotes.pop(key, None)
        if remote is None:
            return
        self.giving.forget(key)
        self._fetch.forget(key)
        if remote.joined and self.picker is not None:
            self.picker.leave(key)
            self._hungry = True
        if remote.listens is not None:
            self.book.ended(remote.listens, now)
        self.giving.fill_slots()
        self._feed_hungry(now)

    def received(self, key: int, count: int, now: float) -> None:
        """Bytes of a peer are in its buffer."""
        remote = self.remotes.get(key)
        if remote is None:
            return
        try:
            self._handle_all(remote, remote.connection.received(count, now), now)
        except ProtocolViolation as error:
            self._close(remote, str(error))
            return
        self._ask(remote, now)
        self._feed_hungry(now)
        self._dirty[key] = None

    def _close(self, remote: Remote, reason: str) -> None:
        self._outputs.append(Close(remote.key, reason))

    # -- what a peer says

    def _handle_all(self, remote: Remote, found: list[events.Event], now: float) -> None:
        for event in found:
            kind = type(event)
            if kind is events.Block:
                self._block(remote, event, now)  # type: ignore[arg-type]
            elif kind is events.Request:
                self.giving.request(remote, event, self.picker)  # type: ignore[arg-type]
            else:
                self._handle(remote, event, now)

    def _handle(self, remote: Remote, event: events.Event, now: float) -> None:
        match event:
            case events.Shook():
                self._shook(remote)
            case events.HasMap() if self.picker is not None:
                self._has_map(remote)
            case events.Has(piece) if self.picker is not None:
                self._has(remote, piece)
            case events.Choked(dropped):
                remote.choked_since = now
                for piece, begin in dropped:
                    self._release(remote, piece, begin)
            case events.Unchoked():
                remote.waiting_since = now
            case events.Interest(interested):
                if interested:
                    self.giving.fill_slots()
                    self._grant_fast(remote)
            case events.Cancel(piece, begin, length):
                self.giving.cancel(remote, piece, begin, length)
            case events.Rejected(piece, begin):
                self._release(remote, piece, begin)
            case events.ExtensionHandshake(says):
                self._extensions(remote, says, now)
            case events.Extension(name, payload):
                self._extension(remote, name, payload, now)

    def _shook(self, remote: Remote) -> None:
        connection = remote.connection
        if self.book.is_banned(remote.address, connection.peer_id):
            raise ProtocolViolation("it is banned")
        for other in self.remotes.values():
            if other is not remote and other.connection.peer_id == connection.peer_id:
                self._one_of(other, remote)
        if remote.listens is not None:
            self.book.answered(remote.listens)
        connection.tell_all(self.picker.have if self.picker else bytearray())

    def _one_of(self, older: Remote, newer: Remote) -> None:
        """Two connections to one peer: both ends must leave the same one."""
        keep = older
        if older.connection.caller != newer.connection.caller:
            we_call = self.settings.peer_id > newer.connection.peer_id
            keep = older if older.connection.caller == we_call else newer
        self._close(newer if keep is older else older, "connected twice")

    def _has_map(self, remote: Remote) -> None:
        assert self.picker is not None
        if remote.joined:  # before the metadata came it had told nothing
            self.picker.leave(remote.key)
        remote.joined = True
        self.picker.join(remote.key, remote.connection.have)
        remote.wanted = self.picker.wants(remote.connection.have)
        self._consider(remote)

    def _has(self, remote: Remote, piece: int) -> None:
        assert self.picker is not None
        if not remote.joined:
            self._has_map(remote)
        elif self.picker.has_more(remote.key, piece):
            remote.wanted += not self.picker.has(piece)
            self._consider(remote)

    def _consider(self, remote: Remote) -> None:
        """Say whether we are interested; seeds have nothing to say to one another."""
        remote.connection.interest(remote.wanted > 0)
        if self.complete and remote.is_seed:
            if remote.listens is not None:
                self.book.give_up(remote.listens)
            self._close(remote, "both have everything")

    def _block(self, remote: Remote, block: events.Block, now: float) -> None:
        assert self.picker is not None
        assert self.info is not None
        piece, begin, size = block.piece, block.begin, len(block.data)
        remote.block_came(size, now)
        self.downloaded += size
        arrival = self.picker.received(remote.key, piece, begin)
        if not arrival.new:
            self.wasted += size
            return
        buffer = self._buffers.get(piece)
        if buffer is None:
            buffer = self._pool.pop() if self._pool else bytearray(self.info.piece_length)
            self._buffers[piece] = buffer
        buffer[begin : begin + size] = block.data
        for key in arrival.cancel:
            other = self.remotes[key]  # type: ignore[index]
            other.connection.cancel(piece, begin)
            self._dirty[other.key] = None
        if arrival.whole:
            length = self.info.shape.piece_size(piece)
            self._checking += length
            data = memoryview(buffer)[:length]
            expected, again = self.info.piece_hash(piece), piece in self._hashes
            self._outputs.append(Check(piece, data, expected, again))

    def _grant_fast(self, remote: Remote) -> None:
        """Let a newcomer have a few pieces, choked or not (BEP 6)."""
        connection = remote.connection
        if self.info is None or self.picker is None or not connection.fast:
            return
        if connection.granted_fast or connection.have.count(1) >= ALLOWED_FAST:
            return
        count = self.info.piece_count
        allowed = allowed_fast_set(self.info_hash, remote.address[0], count, ALLOWED_FAST)
        connection.allow_fast([piece for piece in allowed if self.picker.has(piece)])

    def _extensions(self, remote: Remote, says: dict[bytes, Value], now: float) -> None:
        port = says.get(b"p")
        if remote.listens is None and isinstance(port, int) and 0 < port < 1 << 16:
            remote.listens = (remote.address[0], port)
            self.book.connected(remote.listens)
        if self.info is None and remote.connection.understands(b"ut_metadata"):
            self._fetch.offer(remote.key, says.get(b"metadata_size"))
            self._ask_metadata(now)

    def _extension(self, remote: Remote, name: bytes, payload: bytes, now: float) -> None:
        if name == b"ut_pex":
            if not self.private:
                self.learn(pex.read(payload), now)
            return
        if not remote.connection.understands(b"ut_metadata"):
            return
        reply = answer(self.info.info if self.info else None, payload)
        if reply is not None:
            remote.connection.extension(b"ut_metadata", reply)
        elif self.info is None:
            try:
                info = self._fetch.receive(remote.key, payload, now)
            except ProtocolViolation:
                self._ban(remote.key, "wrong metadata")
                raise
            if info is not None:
                self._learn_metadata(info, now)

    def _ask_metadata(self, now: float) -> None:
        for key, message in self._fetch.requests(now):
            self.remotes[key].connection.extension(b"ut_metadata", message)  # type: ignore[index]
            self._dirty[key] = None  # type: ignore[index]

    def _learn_metadata(self, data: bytes, now: float) -> None:
        try:
            info = parse_info(data)
        except BadTorrent as error:
            # The hash is right: the torrent itself is bad, whoever sent it.
            self._outputs.append(Told("torrent.bad", {"why": str(error)}))
            return
        self._outputs.append(Learned(info))

    def begin(self, info: Metainfo, have: bytearray, now: float) -> None:
        """The answer to Learned: what was there already. Now blocks may be asked for."""
        self._begin(info, have)
        for remote in list(self.remotes.values()):
            try:
                remote.connection.learn(info.shape)
            except ProtocolViolation as error:
                self._close(remote, str(error))
                continue
            if not remote.connection.open:
                continue
            for piece, has in enumerate(have):
                if has:
                    remote.connection.tell_have(piece)
            self._has_map(remote)
            if remote.connection.extensions:
                remote.connection.tell_extensions({b"metadata_size": len(info.info)})
            self._dirty[remote.key] = None
        self._hungry = True
        self._feed_hungry(now)

    # -- asking

    def _release(self, remote: Remote, piece: int, begin: int) -> None:
        if self.picker is not None:
            self.picker.release(remote.key, piece, begin)
            self._hungry = True

    def _ask(self, remote: Remote, now: float) -> None:
        """Keep its pipe full."""
        connection, room = remote.connection, remote.room
        if room <= 0 or not connection.am_interested or self._checking > CHECKING_MAX:
            return
        only: Iterable[int] | None = None
        if connection.peer_choking:
            if not connection.allowed_fast:
                return
            only = connection.allowed_fast
        if self.picker is None or not remote.joined:
            return
        if not connection.outstanding:
            remote.waiting_since = now
        for piece, begin, length in self.picker.pick(remote.key, room, only):
            connection.request(piece, begin, length)
        self._dirty[remote.key] = None

    def _feed_hungry(self, now: float) -> None:
        if self._hungry:
            self._hungry = False
            for remote in self.remotes.values():
                self._ask(remote, now)

    # -- pieces

    def checked(self, piece: int, ok: bool, block_hashes: dict[int, bytes], now: float) -> None:
        """The answer to a Check.

        `block_hashes`: the SHA-1 of each block by its beginning, if the piece is wrong now or
        was before.
        """
        assert self.picker is not None
        assert self.info is not None
        buffer = self._buffers.pop(piece)
        self._checking -= self.info.shape.piece_size(piece)
        if len(self._pool) < POOL_MAX:
            self._pool.append(buffer)
        if ok:
            self._have(piece, block_hashes, now)
        else:
            self._wrong(piece, block_hashes)
        self._hungry = True
        self._feed_hungry(now)

    def _have(self, piece: int, block_hashes: dict[int, bytes], now: float) -> None:
        assert self.picker is not None
        self.picker.verified(piece)
        for begin, (key, digest) in self._hashes.pop(piece, {}).items():
            if block_hashes.get(begin) != digest:
                self._ban(key, f"its block {begin} of piece {piece} was wrong")
        for remote in self.remotes.values():
            if not remote.joined:
                if remote.connection.open:
                    remote.connection.tell_have(piece)
                    self._dirty[remote.key] = None
                continue
            if remote.connection.have[piece]:
                remote.wanted -= 1
                self._consider(remote)
            elif remote.connection.open:
                remote.connection.tell_have(piece)
            self._dirty[remote.key] = None
        if not self.picker.left:
            self._outputs.append(Told("torrent.complete", {"bytes": self.downloaded}))

    def _wrong(self, piece: int, block_hashes: dict[int, bytes]) -> None:
        assert self.picker is not None
        assert self.info is not None
        sent = self.picker.failed(piece)
        self.wasted += self.info.shape.piece_size(piece)
        self._outputs.append(Told("piece.wrong", {"piece": piece, "from": len(set(sent.values()))}))
        senders = {key for key in sent.values() if isinstance(key, int)}
        if len(senders) == 1:
            self._ban(senders.pop(), f"piece {piece} has the wrong hash")
            return
        self._hashes[piece] = {
            begin: (key, block_hashes[begin])
            for begin, key in sent.items()
            if isinstance(key, int) and begin in block_hashes
        }

    def _ban(self, key: int, why: str) -> None:
        remote = self.remotes.get(key)
        if remote is None:
            return
        self.banned += 1
        self.book.ban(remote.listens, remote.connection.peer_id)
        where = remote.listens or remote.address
        self._outputs.append(Told("peer.banned", {"peer": f"{where[0]}:{where[1]}", "why": why}))
        self._close(remote, why)

    # -- others, and time

    def learn(self, addresses: Iterable[Address], now: float) -> None:
        """There may be peers."""
        self.book.learn(addresses, now)
        self._dial(now)

    def _dial(self, now: float) -> None:
        room = self.settings.connections - len(self.remotes) - len(self._dialling)
        for address in self.book.due(min(room, DIALS_MAX - len(self._dialling)), now, self.rng):
            self._dialling.add(address)
            self._outputs.append(Dial(address))

    def on_deadline(self, now: float) -> None:
        """Do what is due."""
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        for remote in list(self.remotes.values()):
            self._look_after(remote, now)
        if now >= self._next_round:
            self._next_round = now + ROUND_S
            self.giving.rechoke(now, seeding=self.complete)
        if self.info is None:
            self._ask_metadata(now)
        self._hungry = True
        self._feed_hungry(now)
        self._dial(now)

    def _look_after(self, remote: Remote, now: float) -> None:
        connection = remote.connection
        if why := connection.overdue(now):
            self._close(remote, why)
            return
        connection.keep_alive(now)
        remote.measure(now)
        if remote.snubbed(now):
            self._snubbed(remote, now)
        choked = connection.peer_choking and not connection.peer_interested
        if choked and now - remote.choked_since > USELESS_S:
            self._close(remote, "it gives nothing and wants nothing")
        if not self.private and now >= remote.pex_at and connection.understands(b"ut_pex"):
            remote.pex_at = now + pex.INTERVAL_S
            peers = {
                other.listens: other.is_seed
                for other in self.remotes.values()
                if other.listens is not None and other is not remote and other.connection.open
            }
            if (message := pex.message(remote.pex_known, peers)) is not None:
                connection.extension(b"ut_pex", message)
        self._dirty[remote.key] = None

    def _snubbed(self, remote: Remote, now: float) -> None:
        """Ask others for what it owes us, and it for one block at a time."""
        remote.snubs += 1
        remote.depth, remote.slow_start = 1, True
        remote.waiting_since = now
        for piece, begin in list(remote.connection.outstanding):
            remote.connection.cancel(piece, begin)
            self._release(remote, piece, begin)
        if remote.snubs >= SNUBS_MAX:
            self._close(remote, "it sends nothing of what it was asked for")
