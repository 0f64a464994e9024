"""A chunk server: replicas on this node's disk, offered to whoever asks, kept as the metadata says.

    server = ChunkServer(runtime, node, raft, settings)
    server.offer(node)                   chunk.* methods, beside whatever else the node offers
    await server.start(address)          learn what is on the disk, say that it is here
    await server.stop()

It announces itself in the metadata under a lease: silent for so long, it is dead. Every scan it
compares its disk with the records:

    listed here, and good            nothing to do
    listed here, missing or damaged  fetched again from the others, block by block
    here, and not listed             garbage: deleted after a while, if it still is not

One rule keeps a replica from being deleted while somebody counts on it: only this server adds
itself to a record, when the chunk is on its disk, and only this server deletes its bytes, when the
record does not list it; both under one lock a chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
from collections import Counter, defaultdict
from typing import Any, Final

from mapreduce.store import healing, model
from mapreduce.store.chunk_files import Absent, ChunkFiles, OutOfOrder
from mapreduce.store.disk_work import DiskWork
from mapreduce.store.errors import Damaged, StoreError
from mapreduce.store.fetch import Fetcher
from mapreduce.store.healer import Healer
from mapreduce.store.messages import FinishChunk, ReadPiece, WhichChunk, WritePiece
from mapreduce.store.metadata import Metadata
from mapreduce.store.model import ChunkRecord, ServerRecord
from mapreduce.store.settings import ChunkSettings
from netstack.rpc.errors import Failed, Unavailable
from netstack.rpc.node import RpcNode
from netstack.rpc.service import Call
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from raftd.client import RaftClient

# The largest answer to one read: below what a message may have.
READ_BYTES_MAX: Final = 4 * 1024 * 1024

# Told of its state when free space has changed by this share, or load by so much.
TELL_SHARE: Final = 0.02
TELL_BYTES: Final = 8 * 1024 * 1024


class ChunkServer:
    """The chunks of one node.

    Args:
        runtime: the world.
        node: on which it is called, and calls others.
        raft: a session with the replicated store.
        service: what the node's certificate says.
        settings: see ChunkSettings.
    """

    def __init__(
        self,
        runtime: Runtime,
        node: RpcNode,
        raft: RaftClient,
        settings: ChunkSettings,
        *,
        service: str,
    ) -> None:
        self.runtime = runtime
        self.settings = settings
        self.metadata = Metadata(raft, runtime.clock.wall)
        self.files = ChunkFiles(runtime.disk)
        self.servers: dict[str, ServerRecord] = {}
        self.counts: Counter[str] = Counter()
        self._node = node
        self._service = service
        self._work = DiskWork(runtime, "chunks")
        self._fetcher = Fetcher(node, self)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._orphans: dict[str, float] = {}
        self._lease = 0
        self._told: ServerRecord | None = None
        self.health: healing.Health | None = None  # of all chunks, while this one heals
        self._load = 0
        self._full = False
        self._trouble = "not yet announced"
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<ChunkServer {self.runtime.node} chunks={len(self.files.held)}>"

    def offer(self, node: RpcNode) -> None:
        """Register the methods (messages.py)."""
        add = node.service.add
        add("chunk.write", self._write, request=WritePiece)
        add("chunk.finish", self._finish, request=FinishChunk)
        add("chunk.read", self._read, request=ReadPiece)
        add("chunk.verify", self._verify, request=WhichChunk)
        add("chunk.clone", self._clone, request=WhichChunk)

    async def ask_itself(self, method: str, body: Any) -> Any:
        """What the healer asks of others, of the server that it is on: nobody dials itself."""
        asked = {"chunk.verify": self._verify, "chunk.clone": self._clone}
        return await asked[method](body)

    async def start(self, address: Address) -> None:
        """Learn what is on the disk, and begin to announce, compare, heal and scrub."""
        self._address = address
        disk = self.runtime.disk
        disk.faults.power_cut = self.settings.power_cut or disk.faults.power_cut
        await self._work.do(self.files.recover)
        for name in self.files.unreadable:
            self.runtime.events.emit("chunk.unreadable", chunk=name)
        for name, work in (("announce", self._announce()), ("scan", self._scan())):
            self._tasks.append(self.runtime.spawn(work, f"chunks: {name}"))
        self._tasks.append(self.runtime.spawn(self._scrub(), "chunks: scrub"))

    async def stop(self) -> None:
        """End what was begun. The lease runs out by itself: a restart is no death to heal."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._work.close()

    def status(self) -> dict[str, Any]:
        """For the daemon that hosts this."""
        return {
            "chunks": len(self.files.held),
            "stored": sum(sums.length for sums in self.files.held.values()),
            "free": self.runtime.disk.free_bytes(),
            "damaged": len(self.files.damaged),
            "cloned": self.counts["cloned"],
            "repaired": self.counts["repaired"],
            "deleted": self.counts["deleted"],
            "healer": self.health is not None,
            "under_replicated": self.health.under_replicated if self.health else 0,
            "trouble": self._said(),
        }

    def _said(self) -> str:
        """Why it is not well; the healer speaks for all chunks."""
        if self._full:
            return "the disk is full"
        if self.health is not None and self.health.unavailable:
            return f"{self.health.unavailable} chunks are on no server that lives"
        return self._trouble

    def metrics(self) -> dict[str, float]:
        """For the daemon that hosts this."""
        names = ("read_bytes", "written_bytes", "cloned", "repaired", "deleted", "damaged")
        counted = {f"ring_chunks_{name}_total": float(self.counts[name]) for name in names}
        return {**counted, "ring_chunks_held": float(len(self.files.held))}

    # -- what is asked of it

    async def _write(self, piece: WritePiece, call: Call) -> None:
        self._moved(len(piece.data))
        self.counts["written_bytes"] += len(piece.data)
        await self._do(self.files.write, piece.chunk, piece.version, piece.offset, piece.data)

    async def _finish(self, body: FinishChunk, call: Call) -> None:
        async with self._locks[body.chunk]:
            await self._do(self.files.finish, body.chunk, body.version, body.length)

    async def _read(self, body: ReadPiece, call: Call) -> bytes:
        if body.length > READ_BYTES_MAX:
            raise Failed("too-long", f"at most {READ_BYTES_MAX} bytes at a time")
        args = (body.chunk, body.version, body.offset, body.length)
        data: bytes = await self._do(self.files.read, *args)
        self._moved(len(data))
        self.counts["read_bytes"] += len(data)
        return data

    async def _verify(self, body: WhichChunk, call: Call | None = None) -> bool:
        if not self.files.good(body.chunk, body.version, body.length):
            return False
        try:
            for _ in await self._do(lambda: list(self.files.verify(body.chunk, body.version))):
                pass
        except Failed:
            return False
        return True

    async def _clone(self, body: WhichChunk, call: Call | None = None) -> None:
        """Fetch a chunk and join its record, which must still be as the healer saw it."""
        record = await self._own(self.metadata.chunk(body.chunk))
        if record is None or (record.version, record.length) != (body.version, body.length):
            raise Failed("stale", f"{body.chunk} is no longer what is to be cloned")
        async with self._locks[body.chunk]:
            if not self.files.good(body.chunk, body.version, body.length):
                await self._fetch(record)
            self.counts["cloned"] += 1
            me = self.runtime.node
            while me not in record.nodes:
                nodes = model.packed_names([*record.nodes, me])
                after = dataclasses.replace(record, nodes=nodes)
                if await self._own(self.metadata.replace(record, after)):
                    break
                found = await self._own(self.metadata.chunk(body.chunk))
                if found is None or found.version != body.version:
                    raise Failed("stale", f"{body.chunk} changed meanwhile")
                record = found
        self.runtime.events.emit("chunk.cloned", chunk=body.chunk, bytes=body.length)

    async def _own(self, call: Any) -> Any:
        """The metadata's error as one of ours."""
        try:
            return await call
        except StoreError as error:
            raise Unavailable(str(error)) from None

    async def _do(self, function: Any, *arguments: Any) -> Any:
        """Work of the disk; what it raises becomes an answer."""
        try:
            return await self._work.do(function, *arguments)
        except Absent as error:
            raise Failed("absent", str(error)) from None
        except OutOfOrder as error:
            raise Failed("out-of-order", str(error)) from None
        except Damaged as error:
            self._found_damage(str(error))
            raise Failed("damaged", str(error)) from None
        except OSError as error:
            self._full = self._full or error.errno == errno.ENOSPC
            reason = "disk-full" if error.errno == errno.ENOSPC else "disk-error"
            raise Failed(reason, str(error)) from None

    def _found_damage(self, what: str) -> None:
        self.counts["damaged"] += 1
        self.runtime.events.emit("chunk.damaged", cause=what)

    def _moved(self, count: int) -> None:
        self._load += count

    # -- it lives

    async def _announce(self) -> None:
        pause_s = self.settings.lease_s / 4
        while True:
            try:
                await self._tell()
                self._trouble = ""
            except StoreError as error:
                self._trouble = str(error)
            self._load //= 2
            await asyncio.sleep(pause_s)

    async def _tell(self) -> None:
        if not self._lease or not await self.metadata.keep(self._lease):
            self._lease, self._told = await self.metadata.lease(self.settings.lease_s), None
        host, port = self._address
        free = self.runtime.disk.free_bytes()
        self._full = self._full and not free
        mine = ServerRecord(self.runtime.node, host, port, self._service, free, self._load)
        told = self._told
        if told is None or _differs(told, mine):
            self._told = mine if await self.metadata.announce(mine, self._lease) else None

    # -- its disk as the metadata says

    async def _scan(self) -> None:
        healer = Healer(self, self._fetcher)
        pause_s = self.settings.scan_ms / 1000
        try:
            while True:
                await asyncio.sleep(pause_s * (0.75 + self.runtime.rng.random() / 2))
                with contextlib.suppress(StoreError):
                    self.servers = await self.metadata.servers()
                    records = await self.metadata.chunks()
                    await self._compare({record.chunk: record for record in records})
                    if self._lease and await self.metadata.become_healer(
                        self.runtime.node, self._lease
                    ):
                        self.health = healing.health(records, self.servers)
                        await healer.heal(records)
                    else:
                        self.health = None
        finally:
            healer.close()

    async def _compare(self, records: dict[str, ChunkRecord]) -> None:
        me = self.runtime.node
        for record in records.values():
            mine = record.committed and me in record.nodes
            if mine and not self.files.good(record.chunk, record.version, record.length):
                await self._repair(record)
        for chunk, version in self.files.parts().items():
            found = records.get(chunk)
            wanted = found is not None and found.version == version and not found.committed
            if not wanted and not self._locks[chunk].locked():
                await self._work.do(self.files.drop_part, chunk)
        now = self.runtime.clock.now()
        for chunk in [*self.files.held]:
            found = records.get(chunk)
            if found is not None and me in found.nodes:
                self._orphans.pop(chunk, None)
            elif now - self._orphans.setdefault(chunk, now) >= self.settings.garbage_s:
                await self._delete(chunk)
        for chunk in [chunk for chunk in self._orphans if chunk not in self.files.held]:
            del self._orphans[chunk]
        for chunk in [chunk for chunk, lock in self._locks.items() if not lock.locked()]:
            del self._locks[chunk]

    async def _repair(self, record: ChunkRecord) -> None:
        """A replica that should be here and good, and is not."""
        with contextlib.suppress(Failed, StoreError):
            async with self._locks[record.chunk]:
                await self._fetch(record)
            self.counts["repaired"] += 1
            self.runtime.events.emit("chunk.repaired", chunk=record.chunk)

    async def _fetch(self, record: ChunkRecord) -> None:
        """The chunk from the others, or what is good of our own; onto the disk, synced.

        Raises Failed, StoreError.
        """
        sink = self.files
        try:
            # Last: what was begun here under the same version must not be taken for this.
            await self._work.do(sink.drop_part, record.chunk)
            async for offset, data in self._fetcher.pieces(record, self.settings.clone_bytes_s):
                self._moved(len(data))
                await self._do(sink.write, record.chunk, record.version, offset, data)
            if not record.length:
                await self._do(sink.write, record.chunk, record.version, 0, b"")
            await self._do(sink.finish, record.chunk, record.version, record.length)
        except BaseException:
            await self._work.do(sink.drop_part, record.chunk)
            raise

    async def _delete(self, chunk: str) -> None:
        async with self._locks[chunk]:
            record = await self.metadata.chunk(chunk)  # as it is now, not as it was
            if record is not None and self.runtime.node in record.nodes:
                return
            with contextlib.suppress(Failed):
                await self._do(self.files.delete, chunk)
                self._orphans.pop(chunk, None)
                self.counts["deleted"] += 1
                self.runtime.events.emit("chunk.deleted", chunk=chunk)

    async def own_piece(self, record: ChunkRecord, offset: int, length: int) -> bytes | None:
        """What is good here of a chunk that as a whole is not."""
        try:
            args = (record.chunk, record.version, offset, length)
            data: bytes = await self._do(self.files.read, *args)
        except Failed:
            return None
        return data

    async def _scrub(self) -> None:
        """All of the disk, again and again, slowly: damage is found before somebody needs it."""
        while True:
            await asyncio.sleep(self.settings.scrub_s * (0.75 + self.runtime.rng.random() / 2))
            for chunk, sums in sorted(self.files.held.items()):
                with contextlib.suppress(Failed):
                    await self._scrub_one(chunk, sums.version)
            self.counts["scrubs"] += 1

    async def _scrub_one(self, chunk: str, version: int) -> None:
        steps = self.files.verify(chunk, version)
        count = await self._do(next, steps, 0)
        while count:
            await asyncio.sleep(count / self.settings.scrub_bytes_s)
            count = await self._do(next, steps, 0)


def _differs(told: ServerRecord, now: ServerRecord) -> bool:
    """Whether it is worth an entry in everybody's log."""
    free = abs(told.free_bytes - now.free_bytes) > TELL_SHARE * told.free_bytes
    return free or abs(told.load - now.load) > TELL_BYTES or not now.free_bytes
