"""The shell: a swarm on sockets and a disk.

    socket ─> link ─> swarm ─> link ─> socket        one turn of the loop: all that has come is
                        │                            taken in, then all answers leave together
             Check ─> PieceWriter (thread)
             uploads <─ PieceReader (thread)

Whatever calls the swarm also calls `touch`, which flushes once at the end of this turn: requests,
haves and blocks for one peer then leave in one system call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from dht.torrent import messages
from dht.torrent.addresses import Address
from dht.torrent.errors import StorageError
from dht.torrent.journal import Journal
from dht.torrent.link import Bytes, Ears, Link, TcpNet
from dht.torrent.metainfo import Metainfo
from dht.torrent.outputs import Check, Close, Dial, Learned, Output, Told
from dht.torrent.picker import Ask
from dht.torrent.pieces import PieceReader, PieceWriter
from dht.torrent.storage import Storage
from dht.torrent.swarm import Settings, Swarm
from netstack.runtime.runtime import Runtime

DIAL_S: Final = 10.0


class Net(Protocol):
    """What listens and dials."""

    async def start(self, address: Address) -> Address:
        """Take the port; where it listens. Raises OSError."""

    async def dial(self, address: Address) -> None:
        """Connect: `Ears.opened` is told. Raises OSError."""

    async def close(self) -> None:
        """Take no more calls."""


class _Wire:
    """A link and the blocks that it has been promised and that are being read."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.promised: deque[Ask] = deque()
        self.full = False


class Session:
    """One peer of one torrent.

    Args:
        folder: where the content lies, or will.
        writes: False: it only gives away what is there, and leaves no journal in the folder.
        over: makes the net; TCP if nothing is said.
    """

    def __init__(
        self,
        runtime: Runtime,
        folder: Path,
        over: Callable[[Ears], Net] = TcpNet,
        *,
        writes: bool = True,
    ) -> None:
        self.runtime = runtime
        self.folder = folder
        self._writes = writes
        self.net = over(self)
        self.address: Address = ("0.0.0.0", 0)
        self.checked = 0  # pieces hashed at the start
        self.resumed = 0  # of them right
        self.failure: StorageError | None = None
        self.complete = asyncio.Event()
        self.stopped = asyncio.Event()
        self._swarm: Swarm | None = None
        self._storage: Storage | None = None
        self._journal: Journal | None = None
        self._writer: PieceWriter | None = None
        self._reader: PieceReader | None = None
        self._wires: dict[int, _Wire] = {}
        self._keys = 0
        self._touched = False
        self._timer: asyncio.TimerHandle | None = None
        self._executors = [runtime.executor(name, brief=False) for name in ("write", "read")]

    def __repr__(self) -> str:
        return f"<Session {self._swarm!r} at {self.address[1]}>"

    @property
    def swarm(self) -> Swarm:
        """The brain; there once `start` has been called."""
        assert self._swarm is not None, "the session is not started"
        return self._swarm

    async def listen(self, address: Address) -> None:
        """Take the port; raises OSError. Who calls before `start` is turned away."""
        self.address = await self.net.start(address)

    async def start(self, settings: Settings, info_hash: bytes, info: Metainfo | None) -> None:
        """Look at what is there already, and begin; raises StorageError."""
        have = await self._open(info) if info is not None else None
        now = self.runtime.clock.now()
        self._swarm = Swarm(settings, info_hash, info, have, now=now, rng=self.runtime.rng)
        self._note_if_complete()
        self._arm()

    async def _open(self, info: Metainfo) -> bytearray:
        """Open files and journal; which pieces are there and right."""
        self._storage = Storage(info, self.folder)
        if self._writes:
            path = self.folder / f".{info.info_hash.hex()}.ringleader"
            self._journal = Journal(path, info.info_hash, info.piece_count)
        have: bytearray = await self._in_thread(self._verify)
        self._writer = PieceWriter(
            self._storage, self._journal, self._executors[0], self._piece_checked, self._failed
        )
        reads = Storage(info, self.folder)
        self._reader = PieceReader(reads, self._executors[1], self.touch, self._piece_lost)
        return have

    def _verify(self) -> bytearray:
        """In the thread: what the journal names, or everything if there is none."""
        assert self._storage is not None
        journal, count = self._journal, self._storage.metainfo.piece_count
        named = journal.open() if journal is not None else None
        have = self._storage.verify(list(range(count)) if named is None else named, self._progress)
        self.resumed = have.count(1)
        if journal is not None:
            journal.add([piece for piece in range(count) if have[piece]])
        return have

    def _progress(self, done: int) -> None:
        self.checked = done

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._executors[0].submit(function, done)
        return await future

    # -- what links tell

    def opened(self, link: Link, address: Address, *, caller: bool) -> int:
        """See Ears."""
        self._keys += 1
        self._wires[self._keys] = _Wire(link)
        if self._swarm is None or self.stopped.is_set():
            link.close()
        else:
            self._swarm.connected(self._keys, address, caller=caller, now=self._now())
            self.touch()
        return self._keys

    def buffer(self, key: int) -> memoryview:
        """See Ears."""
        remote = self._swarm.remotes.get(key) if self._swarm else None
        return remote.connection.buffer() if remote else memoryview(bytearray(4096))

    def received(self, key: int, count: int) -> None:
        """See Ears."""
        if self._swarm is not None:
            self._swarm.received(key, count, self._now())
            self.touch()

    def held(self, key: int, held: bool) -> None:
        """See Ears."""
        wire = self._wires.get(key)
        if wire is not None:
            wire.full = held
            self._hold(key, wire)
            if not held:
                self.touch()

    def ended(self, key: int) -> None:
        """See Ears."""
        self._wires.pop(key, None)
        if self._swarm is not None:
            self._swarm.disconnected(key, self._now())
            self.touch()

    # -- doing what the swarm wants

    def _now(self) -> float:
        return self.runtime.clock.now()

    def touch(self) -> None:
        """Something may be there to send: at the end of this turn of the loop."""
        if not self._touched:
            self._touched = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._touched = False
        swarm = self._swarm
        if swarm is None or self.stopped.is_set():
            return
        for output in swarm.take_outputs():
            self._do(output)
        for remote in swarm.take_dirty():
            parts = remote.connection.take_output()
            if (wire := self._wires.get(remote.key)) is not None:
                remote.connection.sent = self._now()
                wire.link.send([b"".join(parts)])
        for key, wire in list(self._wires.items()):
            if wire.promised:
                self._serve(key, wire)
        for remote, asks in swarm.take_uploads(self._now()):
            if (wire := self._wires.get(remote.key)) is not None:
                wire.promised.extend(asks)
                self._serve(remote.key, wire)
        if swarm.giving.waiting and not swarm.settings.upload_limit:
            self.touch()
        self._arm()

    def _serve(self, key: int, wire: _Wire) -> None:
        """Send promised blocks as far as they are in memory."""
        assert self._reader is not None
        parts: list[Bytes] = []
        promised = wire.promised
        while promised:
            piece, begin, length = promised[0]
            data = self._reader.get(piece)
            if data is None:
                break
            promised.popleft()
            parts += (messages.block_head(piece, begin, length), data[begin : begin + length])
        if parts:
            self.swarm.remotes[key].connection.sent = self._now()
            wire.link.send(parts)
        self._hold(key, wire)

    def _hold(self, key: int, wire: _Wire) -> None:
        """Nothing more for a peer whose socket is full or whose blocks are still being read."""
        remote = self.swarm.remotes.get(key)
        if remote is not None:
            remote.held = wire.full or bool(wire.promised)
            # What comes next is read meanwhile.
            if wire.promised and self._reader is not None:
                for ask in wire.promised:
                    self._reader.get(ask.piece)

    def _do(self, output: Output) -> None:
        match output:
            case Check():
                assert self._writer is not None
                self._writer.add(output)
            case Dial(address):
                self.runtime.spawn(self._dial(address), "a call to a peer")
            case Close(key, reason):
                self._end(key, reason)
            case Learned(metainfo):
                self.runtime.spawn(self._begin_content(metainfo), "content")
            case Told(kind, fields):
                self.runtime.events.emit(kind, **fields)
                self._note_if_complete()

    def _end(self, key: int, reason: str) -> None:
        wire = self._wires.pop(key, None)
        if wire is None:
            return
        remote = self.swarm.remotes.get(key)
        if remote is not None:
            where = f"{remote.address[0]}:{remote.address[1]}"
            self.runtime.events.emit("peer.closed", peer=where, why=reason)
            if parts := remote.connection.take_output():
                wire.link.send([b"".join(parts)])
        wire.link.close()
        self.swarm.disconnected(key, self._now())

    async def _dial(self, address: Address) -> None:
        try:
            async with asyncio.timeout(DIAL_S):
                await self.net.dial(address)
        except (OSError, TimeoutError):
            self.swarm.dial_failed(address, self._now())
            self.touch()

    async def _begin_content(self, info: Metainfo) -> None:
        """The metadata came from peers; now the swarm may ask for blocks."""
        try:
            have = await self._open(info)
        except StorageError as error:
            self._failed(error)
            return
        self.swarm.begin(info, have, self._now())
        self._note_if_complete()
        self.touch()

    def _piece_checked(self, piece: int, ok: bool, hashes: dict[int, bytes]) -> None:
        self.swarm.checked(piece, ok, hashes, self._now())
        self.touch()

    def _piece_lost(self, piece: int, error: StorageError) -> None:
        """Somebody has changed or removed what we were giving away."""
        self._failed(error)

    def _failed(self, error: StorageError) -> None:
        if self.failure is None:
            self.failure = error
            self.runtime.events.emit("storage.failed", error=str(error))
        self.stopped.set()

    def _note_if_complete(self) -> None:
        if self.swarm.complete and not self.complete.is_set():
            if self._storage is not None:
                self._storage.make_empty_files()
            self.complete.set()

    def learn(self, addresses: Iterable[Address]) -> None:
        """A tracker, a ring or a person names peers."""
        self.swarm.learn(addresses, self._now())
        self.touch()

    def _arm(self) -> None:
        """Wake at the swarm's next deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.runtime.call_at(self.swarm.next_deadline(), self._wake)

    def _wake(self) -> None:
        self.swarm.on_deadline(self._now())
        self._flush()

    async def close(self) -> None:
        """End all connections, and wait for the disk."""
        self.stopped.set()
        await self.net.close()
        if self._timer is not None:
            self._timer.cancel()
        for wire in list(self._wires.values()):
            wire.link.close()
        for executor in self._executors:
            executor.close()
        if self._journal is not None:
            self._journal.close()
        if self._storage is not None:
            self._storage.close()
        if self._reader is not None:
            self._reader.close()
