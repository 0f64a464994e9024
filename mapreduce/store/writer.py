"""A file being written: chunk by chunk, each on all its disks before the next is promised.

For each chunk: its record says where it will be (so that nobody takes it for garbage), its pieces
go to all of its servers, all of them sync it, and then the record says that it is written. A server
that fails meanwhile is replaced, and the chunk written anew under the next version, which makes
whatever the failed one has of it stale. Nothing is visible under the path until `seal`.

The writer has a lease (lease.py). If it dies its file is given up and its chunks are garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from mapreduce.store import model, placement
from mapreduce.store.blocks import BLOCK_BYTES, stored_bytes
from mapreduce.store.errors import NoRoom, StoreError, Unclear, WriterLost
from mapreduce.store.messages import FinishChunk, WritePiece
from mapreduce.store.model import ChunkRecord, Entry
from netstack.rpc.errors import RpcError

if TYPE_CHECKING:
    from mapreduce.store.client import ChunkStore

# Bytes a call, and calls under way to each server: the next is there when a disk has done the last.
PIECE_BYTES: Final = 16 * BLOCK_BYTES
WINDOW: Final = 3

# A server that takes longer is replaced.
PIECE_S: Final = 5.0
FINISH_S: Final = 20.0

# How often a chunk is begun anew before its writer gives up; between tries it waits for servers.
TRIES_MAX: Final = 12
PAUSE_S: Final = 0.5


class FileWriter:
    """Append, append, seal. One writer, one file.

    Args:
        store: whose file.
        path: its name once it is sealed, clean.
        entry: chunk size and replicas; the size is counted here.
        replace: whether a file of that name is replaced.
        least: replicas that will do while no more servers live; the healer makes up for the rest.
    """

    def __init__(
        self, store: ChunkStore, path: str, entry: Entry, *, replace: bool, least: int
    ) -> None:
        self._store = store
        self._path = path
        self._entry = entry
        self._replace = replace
        self._least = least
        self._buffer = bytearray()
        self._index = 0
        self._size = 0
        self._lease = 0
        self.ended = False

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open"
        return f"<FileWriter {self._path} {state} bytes={self._size} chunks={self._index}>"

    async def open(self) -> None:
        """Say that the file is being written."""
        metadata = self._store.metadata
        self._lease = await self._store.lease.take()
        await metadata.begin(self._entry.file, self._path, self._lease)

    async def append(self, data: bytes) -> None:
        """More bytes; whole chunks are on their disks when this returns, the rest waits here."""
        self._refuse_ended()
        at, view = 0, memoryview(data)
        while at < len(view):
            if not self._buffer and len(view) - at >= self._entry.chunk_bytes:
                # A whole chunk: not copied first.
                await self._flush(view[at : at + self._entry.chunk_bytes])
                at += self._entry.chunk_bytes
                continue
            room = self._entry.chunk_bytes - len(self._buffer)
            self._buffer += view[at : at + room]
            at += room
            if len(self._buffer) == self._entry.chunk_bytes:
                await self._flush_buffer()

    async def seal(self) -> Entry:
        """The last chunk, and the name; afterwards nothing of it changes any more.

        Raises FileExists, NoRoom, WriterLost, …; then it can be abandoned, or sealed again.
        """
        self._refuse_ended()
        if self._buffer:
            await self._flush_buffer()
        entry = Entry(
            self._entry.file,
            self._size,
            self._entry.chunk_bytes,
            self._entry.replicas,
            self._store.runtime.clock.wall(),
        )
        try:
            await self._store.metadata.seal(self._path, entry, replace=self._replace)
        except Unclear:
            with contextlib.suppress(StoreError):
                if (await self._store.metadata.entry(self._path)).file == entry.file:
                    self.ended = True
                    return entry
            raise
        self.ended = True
        return entry

    async def abandon(self) -> None:
        """Give it up; what was written is garbage."""
        if not self.ended:
            self.ended = True
            with contextlib.suppress(StoreError):
                await self._store.metadata.abandon(self._entry.file, still_written=True)

    def _refuse_ended(self) -> None:
        if self.ended:
            raise StoreError(f"{self._path!r} is no longer being written")
        if self._lease != self._store.lease.id:
            raise WriterLost(f"the lease of the writer of {self._path!r} ran out")

    # -- one chunk

    async def _flush_buffer(self) -> None:
        """The buffer is kept until it is written: what failed can be tried again."""
        with memoryview(bytes(self._buffer)) as data:
            await self._flush(data)
        self._buffer.clear()

    async def _flush(self, data: memoryview) -> None:
        """`data` becomes a chunk."""
        chunk = model.chunk_id(self._entry.file, self._index)
        before: ChunkRecord | None = None
        failed: dict[str, str] = {}
        why: dict[str, str] = {}
        for attempt in range(TRIES_MAX):
            if attempt:
                await asyncio.sleep(PAUSE_S)
            least = self._least if attempt else self._entry.replicas
            nodes = await self._place(len(data), failed, least)
            if nodes is None:
                failed.clear()  # those that failed before are all there is
                continue
            version = before.version + 1 if before is not None else 1
            record = ChunkRecord(chunk, version, model.WRITING, self._entry.replicas, nodes)
            await self._store.metadata.allocate(record, before)
            before = record
            bad = await self._write(record, data)
            if not bad and await self._commit(record, len(data)):
                self._index += 1
                self._size += len(data)
                return
            failed |= bad
            why |= bad
        live = sorted(await self._store.links.servers(fresh=True))
        reasons = "".join(f"; {name}: {text}" for name, text in sorted(why.items()))
        raise NoRoom(
            f"a chunk of {self._path!r} needs {self._least} chunk servers with room, "
            f"and those that live are {', '.join(live) or 'none'}{reasons}; see: ring status"
        )

    async def _place(
        self, size: int, failed: Collection[str], least: int
    ) -> tuple[str, ...] | None:
        """Where the replicas go; None if fewer than `least` servers have room."""
        servers = await self._store.links.servers(fresh=bool(failed))
        chosen = placement.choose(
            servers.values(),
            self._entry.replicas,
            need_bytes=stored_bytes(size),
            exclude={*failed, *self._store.links.suspects()},
            rng=self._store.runtime.rng,
        )
        if len(chosen) < least:
            return None
        return model.packed_names(server.name for server in chosen)

    async def _write(self, record: ChunkRecord, data: memoryview) -> dict[str, str]:
        """All pieces to all replicas, and synced there; returns who did not do it, and why."""
        bad: dict[str, str] = {}
        call = self._store.links.call

        async def replica(name: str) -> None:
            under_way: deque[asyncio.Task[None]] = deque()
            try:
                for offset in range(0, len(data), PIECE_BYTES):
                    piece = bytes(data[offset : offset + PIECE_BYTES])
                    body = WritePiece(record.chunk, record.version, offset, piece)
                    work = call(name, "chunk.write", body, PIECE_S)
                    under_way.append(asyncio.ensure_future(work))
                    if len(under_way) == WINDOW:
                        await under_way.popleft()
                while under_way:
                    await under_way.popleft()
                finish = FinishChunk(record.chunk, record.version, len(data))
                await call(name, "chunk.finish", finish, FINISH_S)
            except RpcError as error:
                bad[name] = error.message
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

        await asyncio.gather(*(replica(name) for name in record.nodes))
        return bad

    async def _commit(self, record: ChunkRecord, length: int) -> bool:
        """The record says that it is written; False if the file was given up meanwhile."""
        written = ChunkRecord(record.chunk, record.version, length, record.replicas, record.nodes)
        try:
            if await self._store.metadata.replace(record, written):
                return True
        except Unclear:
            if await self._store.metadata.chunk(record.chunk) == written:
                return True
            raise
        raise WriterLost(f"{self._path!r} was given up while it was being written")
