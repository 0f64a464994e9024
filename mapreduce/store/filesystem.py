"""The chunk store as an fsspec file system: `ring://logs/monday`.

    fsspec.open("ring://logs/monday")                   the cluster of $RING_HOME, or of ./.ring
    fsspec.filesystem("ring", config="/srv/ring/cluster.toml")

So pandas, Dask, pyarrow and whoever else speaks fsspec use the store. What is particular:

- A file being written is seen by nobody until it is closed, and then whole.
- "xb" and `pipe_file(mode="create")` are atomic: of two creators one fails. There is no "ab":
  files do not change.
- `mv` of a file is one atomic step; of a folder, one a file.
- A process that was forked makes a connection of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from mapreduce.store.client import NotAFile, NotAFolder, Range, StoreError, SyncChunkStore
from mapreduce.store.model import Entry
from mapreduce.store.writer import FileWriter

# What an open file reads ahead and gathers before it writes.
BLOCK_BYTES = 4 * 1024 * 1024

# Of ChunkStore.create, that `open` and `pipe_file` take too.
OPTIONS = ("chunk_bytes", "replicas", "least_replicas")


class RingFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files in the chunk store of one cluster.

    Args:
        config: the cluster's file; None: that of $RING_HOME, or of `.ring` here.
        beside: the chunk server whose disk this process may read, if there is one beside it.
    """

    protocol: ClassVar[str] = "ring"
    root_marker: ClassVar[str] = ""

    def __init__(self, config: str | None = None, beside: str = "", **options: Any) -> None:
        super().__init__(**options)
        home = Path(os.environ.get("RING_HOME") or ".ring")
        self.config = str(Path(config or home / "cluster.toml").absolute())
        self._beside = beside
        self._connected: tuple[int, SyncChunkStore] | None = None
        self._connecting = threading.Lock()

    def __repr__(self) -> str:
        return f"<RingFileSystem {self.config}>"

    @property
    def store(self) -> SyncChunkStore:
        """This process's connection."""
        with self._connecting:
            if self._connected is None or self._connected[0] != os.getpid():
                self._connected = (os.getpid(), SyncChunkStore(self.config, beside=self._beside))
            return self._connected[1]

    def close(self) -> None:
        """End the connection; the next call makes a new one."""
        with self._connecting:
            if self._connected is not None and self._connected[0] == os.getpid():
                self._connected[1].close()
            self._connected = None

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        if isinstance(stripped, list):
            return stripped
        return stripped.strip("/")

    # -- looking

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What is in a folder, or the file itself."""
        path = self._strip_protocol(path)
        try:
            found = [
                _info(f"{path}/{name}" if path else name, entry)
                for name, entry in self.store.list(path)
            ]
        except NotAFolder:
            found = [self.info(path)]
        return found if detail else [info["name"] for info in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """name, size, type, created, chunk_bytes, replicas."""
        path = self._strip_protocol(path)
        return _info(path, self.store.stat(path))

    def created(self, path: str) -> datetime:
        """When it was sealed."""
        return datetime.fromtimestamp(self.info(path)["created"], tz=UTC)

    def modified(self, path: str) -> datetime:
        """The same: files do not change."""
        return self.created(path)

    def checksum(self, path: str) -> int:
        """Of an id that no two files share: equal only for the same contents."""
        return int(self.info(path)["file"] or "0", 16)

    def locate(self, path: str) -> list[Range]:
        """Where the chunks of a file are: (offset, length, names of servers) each."""
        return self.store.locate(self._strip_protocol(path))

    # -- reading

    def read_bytes_from(self) -> dict[str, int]:
        """How much this process has read so far: "local" and "remote" bytes."""
        connected = self._connected
        if connected is None or connected[0] != os.getpid():
            return {}
        return dict(connected[1].asynchronous.read_bytes)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Bytes of a file; negative positions count from its end."""
        path = self._strip_protocol(path)
        begin = start or 0
        if begin < 0 or (end is not None and end < 0):
            size = self.info(path)["size"]
            begin = max(0, size + begin) if begin < 0 else begin
            end = size + end if end is not None and end < 0 else end
        length = None if end is None else max(0, end - begin)
        return self.store.read(path, begin, length)

    # -- writing

    def _open(
        self, path: str, mode: str = "rb", block_size: Any = None, **options: Any
    ) -> AbstractBufferedFile:
        if mode == "ab":
            raise ValueError("files of the chunk store do not change: there is no appending")
        return RingFile(self, path, mode, block_size or BLOCK_BYTES, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write a whole file; mode "create": only if there is none."""
        replace = mode != "create"
        self.store.put(self._strip_protocol(path), bytes(value), replace=replace, **options)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """A copy with chunks of its own; of a folder, an empty one."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        entry = self.store.stat(path1)
        if entry.is_folder:
            self.store.make_folder(path2)
            return
        self.store.run(self._copy(path1, path2, entry))

    async def _copy(self, path1: str, path2: str, entry: Entry) -> None:
        store = self.store.asynchronous
        writer = await store.create(path2, chunk_bytes=entry.chunk_bytes, replicas=entry.replicas)
        try:
            async for piece in store.stream(path1):
                await writer.append(piece)
            await writer.seal()
        except BaseException:
            await writer.abandon()
            raise

    def mv(self, path1: str, path2: str, recursive: bool = False, **options: Any) -> None:
        """Rename a file, atomically; folders are copied and removed."""
        if isinstance(path1, str) and isinstance(path2, str) and self.isfile(path1):
            target = self._strip_protocol(path2)
            if path2.endswith("/") or self.isdir(target):
                name = self._strip_protocol(path1).rpartition("/")[2]
                target = f"{target}/{name}" if target else name
            self.store.rename(self._strip_protocol(path1), target)
        else:
            super().mv(path1, path2, recursive=recursive, **options)

    # -- names

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """A folder; raises FileExistsError."""
        path = self._strip_protocol(path)
        parent = self._parent(path)
        if not create_parents and not self.isdir(parent):
            raise FileNotFoundError(parent)
        self.store.make_folder(path, exist_ok=False)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """A folder and those above it."""
        self.store.make_folder(self._strip_protocol(path), exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """An empty folder."""
        self.store.remove_folder(self._strip_protocol(path))

    def _rm(self, path: str) -> None:
        path = self._strip_protocol(path)
        try:
            self.store.remove(path)
        except NotAFile:
            self.store.remove_folder(path)

    def rm_file(self, path: str) -> None:
        """A file, or an empty folder."""
        self._rm(path)


class RingFile(AbstractBufferedFile):  # type: ignore[misc]
    """One open file of the store."""

    _writer: FileWriter | None = None

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.store.read(self.path, start, end - start)
        return found

    def __init__(
        self, fs: RingFileSystem, path: str, mode: str, *args: Any, **options: Any
    ) -> None:
        super().__init__(fs, path, mode, *args, **options)
        if mode != "rb":
            # Now, not when the first block is full: whoever may not write learns it at `open`.
            self._initiate_upload()
            self.offset = 0

    def _initiate_upload(self) -> None:
        options = {k: v for k, v in self.kwargs.items() if k in OPTIONS}
        self._writer = self.fs.store.create(self.path, replace=self.mode != "xb", **options)

    def _upload_chunk(self, final: bool = False) -> bool:
        assert self._writer is not None
        self.fs.store.run(self._writer.append(self.buffer.getvalue()))
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Give it its name."""
        if self._writer is not None:
            self.fs.store.run(self._writer.seal())

    def discard(self) -> None:
        """It never was."""
        if self._writer is not None:
            self.fs.store.run(self._writer.abandon())

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None and self._writer is not None:
            self.discard()  # half a file is none
            self.closed = True
        else:
            self.close()

    def __del__(self) -> None:
        # As a writer that was never closed: what it wrote is given up with its lease.
        with contextlib.suppress(AttributeError, StoreError):
            if self.mode == "rb":
                self.closed = True


def _info(path: str, entry: Entry) -> dict[str, Any]:
    return {
        "name": path,
        "size": entry.size,
        "type": "directory" if entry.is_folder else "file",
        "created": entry.created_s,
        "file": entry.file,
        "chunk_bytes": entry.chunk_bytes,
        "replicas": entry.replicas,
    }
