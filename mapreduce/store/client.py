"""The client of the chunk store.

    async with ChunkStore.connect(".ring/cluster.toml") as store:
        await store.put("logs/monday", data)
        data = await store.read("logs/monday", offset=100, length=50)
        for offset, length, nodes in await store.locate("logs/monday"):
            ...

    with SyncChunkStore(".ring/cluster.toml") as store:        the same calls, without await

Files are written once, by one writer, and never change: they appear under their path whole, when
they are sealed. A read is answered by any replica whose bytes match their checksums.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from mapreduce.store.blocks import BLOCK_BYTES
from mapreduce.store.errors import (
    BadPath,
    ChunkLost,
    FileExists,
    FolderNotEmpty,
    MetadataDown,
    NoRoom,
    NoSuchFile,
    NotAFile,
    NotAFolder,
    StoreError,
    Unclear,
    WriterLost,
)
from mapreduce.store.lease import WriterLease
from mapreduce.store.links import ServerLinks
from mapreduce.store.messages import ReadPiece
from mapreduce.store.metadata import Metadata
from mapreduce.store.model import ChunkRecord, Entry, clean_path
from mapreduce.store.own_disk import OwnDisk
from mapreduce.store.settings import NO_RAFT, ChunkSettings
from mapreduce.store.writer import FileWriter
from netstack.rpc.caller import caller
from netstack.rpc.errors import RpcError
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.synchronous import Synchronous
from raftd.client import RaftClient

if TYPE_CHECKING:
    from mapreduce.store.filesystem import RingFileSystem

__all__ = [
    "BadPath",
    "ChunkLost",
    "ChunkStore",
    "FileExists",
    "FileWriter",
    "FolderNotEmpty",
    "MetadataDown",
    "NoRoom",
    "NoSuchFile",
    "NotAFile",
    "NotAFolder",
    "Range",
    "StoreError",
    "SyncChunkStore",
    "Unclear",
    "WriterLost",
    "file_system",
]

T = TypeVar("T")

# Bytes a call and calls under way at a time, when a file is read.
PIECE_BYTES: Final = 16 * BLOCK_BYTES
WINDOW: Final = 4
PIECE_S: Final = 4.0

# How long a chunk that nobody can give is asked for: a restart, or a server's lease.
PATIENCE_S: Final = 10.0
PAUSE_S: Final = 0.1


class Range(NamedTuple):
    """A chunk of a file: where in the file, and on whose disks."""

    offset: int
    length: int
    nodes: list[str]


class ChunkStore:
    """One caller of the store.

    Args:
        node: a started RpcNode to call from.
        raft: a session with the replicated store.
        settings: chunk size and replicas of new files.
        own: the disk of a chunk server beside the caller; what lies there is read there.

    `read_bytes` counts what was read "local", from that disk, and "remote", from servers.
    """

    def __init__(
        self,
        node: RpcNode,
        raft: RaftClient,
        settings: ChunkSettings,
        own: OwnDisk | None = None,
    ) -> None:
        self.runtime = node.runtime
        self.metadata = Metadata(raft, node.runtime.clock.wall)
        self.links = ServerLinks(node, self.metadata)
        self.lease = WriterLease(node.runtime, self.metadata)
        self.settings = settings
        self.read_bytes: Counter[str] = Counter()
        self._own = own

    def __repr__(self) -> str:
        return f"<ChunkStore {self.links!r}>"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, config: Path | str, *, identity: str = "cli", beside: str = ""
    ) -> AsyncIterator[ChunkStore]:
        """A client of the cluster whose file is `config`; raises ConfigError or KeystoreError.

        beside: the chunk server whose disk this process may read.
        """
        cluster = ClusterConfig.load(Path(config))
        members = {node.name: node.address for node in cluster.of_service("raft")}
        if not members:
            raise ConfigError(NO_RAFT)
        own = OwnDisk(beside, cluster.home / "nodes" / beside / "data") if beside else None
        async with caller(cluster, identity) as node:
            raft = RaftClient(node, members)
            store = cls(node, raft, ChunkSettings.of(cluster), own)
            try:
                yield store
            finally:
                await store.close()
                raft.close()

    async def close(self) -> None:
        """Give up what is still being written, and the connections; the node is the caller's."""
        await self.lease.close()
        await self.links.close()

    # -- writing

    async def create(
        self,
        path: str,
        *,
        replace: bool = True,
        chunk_bytes: int | None = None,
        replicas: int | None = None,
        least_replicas: int | None = None,
    ) -> FileWriter:
        """A writer of a new file; raises BadPath, and FileExists if it must not replace one.

        least_replicas: so many will do, while no more servers live; by default all of them.
        """
        path = clean_path(path)
        if not path:
            raise NotAFile("the root is a folder")
        chunk_bytes = chunk_bytes or self.settings.chunk_bytes
        if chunk_bytes % BLOCK_BYTES:
            raise StoreError(f"chunk_bytes should be a multiple of {BLOCK_BYTES}")
        with contextlib.suppress(NoSuchFile):
            old = await self.metadata.entry(path)
            if old.is_folder:
                raise NotAFile(f"{path!r} is a folder")
            if not replace:
                raise FileExists(f"there is a {path!r} already")
        file = self.runtime.entropy(8).hex()
        replicas = replicas or self.settings.replicas
        entry = Entry(file, 0, chunk_bytes, replicas, 0.0)
        least = min(least_replicas or replicas, replicas)
        writer = FileWriter(self, path, entry, replace=replace, least=least)
        await writer.open()
        return writer

    async def put(self, path: str, data: bytes, **options: Any) -> Entry:
        """A whole file at once; see `create` for the options."""
        writer = await self.create(path, **options)
        try:
            await writer.append(data)
            return await writer.seal()
        except BaseException:
            await writer.abandon()
            raise

    # -- reading

    async def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file; fewer only at its end. Raises NoSuchFile, NotAFile, ChunkLost."""
        return b"".join([piece async for piece in self.stream(path, offset, length)])

    async def stream(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """The same in pieces, in order, the next ones already under way."""
        entry = await self.stat(path)
        if entry.is_folder:
            raise NotAFile(f"{path!r} is a folder")
        end = entry.size if length is None else min(entry.size, offset + length)
        records = await self.metadata.chunks(entry.file)
        waiting: list[asyncio.Task[bytes]] = []
        try:
            for record, at, count in _pieces(records, entry.chunk_bytes, offset, end):
                waiting.append(asyncio.ensure_future(self._piece(record, at, count)))
                if len(waiting) == WINDOW:
                    yield await waiting.pop(0)
            while waiting:
                yield await waiting.pop(0)
        finally:
            for task in waiting:
                task.cancel()

    async def _piece(self, record: ChunkRecord, offset: int, length: int) -> bytes:
        deadline = self.runtime.clock.now() + PATIENCE_S
        why: dict[str, str] = {}
        if self._own is not None:
            found_here = self._own.read(record, offset, length)
            if found_here is not None:
                self.read_bytes["local"] += length
                return found_here
        while True:
            for name in self.links.in_order(record.nodes):
                body = ReadPiece(record.chunk, record.version, offset, length)
                try:
                    data: bytes = await self.links.call(name, "chunk.read", body, PIECE_S)
                except RpcError as error:
                    why[name] = error.message
                    continue
                if len(data) == length:
                    self.read_bytes["remote"] += length
                    return data
                why[name] = f"it gave {len(data)} bytes of {length}"
            if self.runtime.clock.now() > deadline:
                said = "; ".join(f"{name}: {text}" for name, text in sorted(why.items()))
                raise ChunkLost(f"nobody can give chunk {record.chunk} now ({said})")
            await asyncio.sleep(PAUSE_S)
            await self.links.servers(fresh=True)
            found = await self.metadata.chunk(record.chunk)
            if found is None:
                raise NoSuchFile(f"the file of chunk {record.chunk} was removed meanwhile")
            record = found

    async def locate(self, path: str) -> list[Range]:
        """Where the chunks of a file are: for whoever wants to work near its data."""
        entry = await self.stat(path)
        if entry.is_folder:
            raise NotAFile(f"{path!r} is a folder")
        alive = await self.links.servers()
        return [
            Range(i * entry.chunk_bytes, record.length, [n for n in record.nodes if n in alive])
            for i, record in enumerate(await self.metadata.chunks(entry.file))
        ]

    # -- names

    async def stat(self, path: str) -> Entry:
        """A path's entry; raises NoSuchFile."""
        return await self.metadata.entry(clean_path(path))

    async def list(self, folder: str = "") -> list[tuple[str, Entry]]:
        """(name, entry) of what is in a folder, sorted; raises NoSuchFile, NotAFolder."""
        return await self.metadata.children(clean_path(folder))

    async def make_folder(self, path: str, *, exist_ok: bool = True) -> None:
        """A folder, and those above it."""
        if path := clean_path(path):
            await self.metadata.make_folder(path, exist_ok=exist_ok)

    async def remove(self, path: str) -> None:
        """A file."""
        path = clean_path(path)
        if not path:
            raise NotAFile("the root is a folder")
        await self.metadata.remove(path)

    async def remove_folder(self, path: str) -> None:
        """An empty folder; the root stays."""
        if path := clean_path(path):
            await self.metadata.remove_folder(path)

    async def rename(self, old: str, new: str) -> None:
        """A file, whole; one of the new name is replaced."""
        old, new = clean_path(old), clean_path(new)
        if not old or not new:
            raise NotAFile("the root is a folder")
        await self.metadata.rename(old, new)


def _pieces(
    records: list[ChunkRecord], chunk_bytes: int, offset: int, end: int
) -> list[tuple[ChunkRecord, int, int]]:
    """(chunk, offset in it, length) of the reads that make [offset, end) of a file."""
    found = []
    while offset < end:
        index, at = divmod(offset, chunk_bytes)
        count = min(PIECE_BYTES - at % PIECE_BYTES, chunk_bytes - at, end - offset)
        found.append((records[index], at, count))
        offset += count
    return found


class SyncChunkStore(Synchronous[ChunkStore]):
    """The same calls without await, from any thread."""

    def __init__(self, config: Path | str, *, identity: str = "cli", beside: str = "") -> None:
        super().__init__(ChunkStore.connect(config, identity=identity, beside=beside))

    def create(self, path: str, **options: Any) -> FileWriter:
        """See ChunkStore.create; hand the writer's calls to `run`."""
        return self.run(self.asynchronous.create(path, **options))

    def put(self, path: str, data: bytes, **options: Any) -> Entry:
        """See ChunkStore.put."""
        return self.run(self.asynchronous.put(path, data, **options))

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """See ChunkStore.read."""
        return self.run(self.asynchronous.read(path, offset, length))

    def locate(self, path: str) -> list[Range]:
        """See ChunkStore.locate."""
        return self.run(self.asynchronous.locate(path))

    def stat(self, path: str) -> Entry:
        """See ChunkStore.stat."""
        return self.run(self.asynchronous.stat(path))

    def list(self, folder: str = "") -> list[tuple[str, Entry]]:
        """See ChunkStore.list."""
        return self.run(self.asynchronous.list(folder))

    def make_folder(self, path: str, *, exist_ok: bool = True) -> None:
        """See ChunkStore.make_folder."""
        self.run(self.asynchronous.make_folder(path, exist_ok=exist_ok))

    def remove(self, path: str) -> None:
        """See ChunkStore.remove."""
        self.run(self.asynchronous.remove(path))

    def remove_folder(self, path: str) -> None:
        """See ChunkStore.remove_folder."""
        self.run(self.asynchronous.remove_folder(path))

    def rename(self, old: str, new: str) -> None:
        """See ChunkStore.rename."""
        self.run(self.asynchronous.rename(old, new))


def file_system(config: Path | str) -> RingFileSystem:
    """The store as fsspec knows file systems."""
    from mapreduce.store.filesystem import RingFileSystem

    return RingFileSystem(config=str(config))
