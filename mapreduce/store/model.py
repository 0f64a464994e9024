"""What the store knows about its files, and under which keys of the replicated store it lies.

    fs/n/<folder>\\0<name>      Entry: a folder, or a sealed file
    fs/o/<file>                an open file: which path it wants
    fs/w/<file>                under the lease of its writer: it still writes
    fs/c/<file>/<index>        ChunkRecord: version, length, replicas wanted, who holds it
    fs/s/<server>              ServerRecord, under the server's lease: it lives; its room
    fs/h                       who heals, under its lease

The metadata is the truth. What lies on a disk and is not listed is garbage; what is listed and
missing is fetched again. Names of files are random and never used twice, so nothing that is left
over anywhere can be taken for something new. A folder's children share a prefix, so listing one
folder reads nothing below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgpack

from mapreduce.store.errors import BadPath

SCHEME: Final = "ring://"

ENTRIES: Final = b"fs/n/"
OPEN: Final = b"fs/o/"
WRITERS: Final = b"fs/w/"
CHUNKS: Final = b"fs/c/"
SERVERS: Final = b"fs/s/"
HEALER: Final = b"fs/h"

# A path and its prefix stay far below what a key of the replicated store may have.
PATH_BYTES_MAX: Final = 1024

# Of a chunk that is being written: its length is not known.
WRITING: Final = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """A name: a folder, or a sealed file.

    file: id of the file's chunks; empty for a folder.
    """

    file: str
    size: int
    chunk_bytes: int
    replicas: int
    created_s: float

    @property
    def is_folder(self) -> bool:
        """Whether it has children and no bytes."""
        return not self.file

    def pack(self) -> bytes:
        """As it is stored."""
        fields = (self.file, self.size, self.chunk_bytes, self.replicas, self.created_s)
        packed: bytes = msgpack.packb(fields)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Entry:
        """What `pack` made."""
        return cls(*msgpack.unpackb(data))


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is being written: nobody sees it under its path yet."""

    path: str
    created_s: float

    def pack(self) -> bytes:
        """As it is stored."""
        packed: bytes = msgpack.packb((self.path, self.created_s))
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> OpenFile:
        """What `pack` made."""
        return cls(*msgpack.unpackb(data))


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One chunk.

    chunk: "<file>/<index>".
    version: raised each time its writer begins it anew; a replica of another version is stale.
    length: bytes; WRITING until all its replicas are on their disks.
    replicas: how many there should be.
    nodes: servers that hold it, or, while it is written, that are to.
    """

    chunk: str
    version: int
    length: int
    replicas: int
    nodes: tuple[str, ...]

    @property
    def committed(self) -> bool:
        """Whether it is written, and will not change."""
        return self.length != WRITING

    def pack(self) -> bytes:
        """As it is stored."""
        packed: bytes = msgpack.packb((self.version, self.length, self.replicas, self.nodes))
        return packed

    @classmethod
    def unpack(cls, key: bytes, data: bytes) -> ChunkRecord:
        """What `pack` made."""
        version, length, replicas, nodes = msgpack.unpackb(data)
        return cls(key.removeprefix(CHUNKS).decode(), version, length, replicas, tuple(nodes))


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A chunk server that lives.

    service: what its certificate says it is; callers dial it as that.
    free_bytes: room on its disk.
    load: bytes it has moved lately; decays by half a beat.
    """

    name: str
    host: str
    port: int
    service: str
    free_bytes: int
    load: int

    def pack(self) -> bytes:
        """As it is stored."""
        fields = (self.host, self.port, self.service, self.free_bytes, self.load)
        packed: bytes = msgpack.packb(fields)
        return packed

    @classmethod
    def unpack(cls, key: bytes, data: bytes) -> ServerRecord:
        """What `pack` made."""
        return cls(key.removeprefix(SERVERS).decode(), *msgpack.unpackb(data))


def clean_path(path: str) -> str:
    """`path` without `ring://` and slashes at its ends; "" is the root. Raises BadPath."""
    path = path.removeprefix(SCHEME).strip("/")
    if len(path.encode("utf-8", "surrogateescape")) > PATH_BYTES_MAX:
        raise BadPath(f"a path has {PATH_BYTES_MAX} bytes at the most: {path[:40]!r}…")
    for part in path.split("/") if path else ():
        if part in ("", ".", "..") or "\0" in part:
            raise BadPath(f"{path!r} cannot be a path: {part!r} is no name")
    return path


def split_path(path: str) -> tuple[str, str]:
    """(folder, name) of a clean path that is not the root."""
    folder, _, name = path.rpartition("/")
    return folder, name


def entry_key(path: str) -> bytes:
    """Of a clean path that is not the root."""
    folder, name = split_path(path)
    return children_prefix(folder) + name.encode("utf-8", "surrogateescape")


def children_prefix(folder: str) -> bytes:
    """What the keys of all children of `folder`, and no others, begin with."""
    return ENTRIES + folder.encode("utf-8", "surrogateescape") + b"\0"


def ancestors(path: str) -> list[str]:
    """The folders above a clean path, the nearest first; the root is not among them."""
    found = []
    while "/" in path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found


def chunk_key(chunk: str) -> bytes:
    """Of a chunk's record."""
    return CHUNKS + chunk.encode()


def chunk_id(file: str, index: int) -> str:
    """The name of a file's chunk; names sort as their indices do."""
    return f"{file}/{index:08x}"


def file_of(chunk: str) -> str:
    """The file to which a chunk belongs."""
    return chunk.partition("/")[0]


def packed_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names in a fixed order, each once: equal sets make equal records."""
    return tuple(sorted(set(names)))
