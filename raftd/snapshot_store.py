"""Snapshots on disk: one file each, whole or not there at all.

    snap/00000000000000001234.snap      crc:4  msgpack [index, term, membership]  data

A file is written beside its place, synced and renamed. The newest that is whole counts; one that
is damaged is passed over, and only then is an older one used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import google_crc32c
import msgpack

from netstack.runtime.disk import Disk
from raftd.log import SnapshotMeta
from raftd.membership import Membership

FOLDER = "snap"

# The newest, and one to fall back to.
KEPT = 2

PIECE_BYTES = 64 * 1024
HEADER_BYTES_MAX = 1024 * 1024


def save(disk: Disk, meta: SnapshotMeta, parts: Iterable[bytes]) -> bytes:
    """Write a snapshot durably, as its parts come; returns them joined. Raises OSError."""
    header: bytes = msgpack.packb([meta.index, meta.term, meta.membership.pack()])
    crc: int = google_crc32c.value(header)
    pieces: list[bytes] = []
    failpoint = disk.failpoint
    with disk.replacing(f"{FOLDER}/{meta.index:020d}.snap") as file:
        file.append(bytes(4) + header)
        for piece in _pieces(parts):
            crc = google_crc32c.extend(crc, piece)
            file.append(piece)
            pieces.append(piece)
        file.write_at(0, crc.to_bytes(4, "big"))
        failpoint("snapshot.before-sync")
    failpoint("snapshot.after-rename")
    return b"".join(pieces)


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces worth a write."""
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def load_newest(disk: Disk) -> tuple[tuple[SnapshotMeta, bytes] | None, int]:
    """The newest snapshot that is whole, and the index of the newest that is damaged (0: none)."""
    damaged_index = 0
    for name in sorted(disk.list(FOLDER), reverse=True):
        if name.endswith(".snap"):
            found = _parse(disk.read(f"{FOLDER}/{name}"))
            if found is not None:
                return found, damaged_index
            damaged_index = max(damaged_index, int(name.removesuffix(".snap")))
    return None, damaged_index


def remove_older(disk: Disk, index: int) -> None:
    """Delete all but the newest KEPT snapshots up to `index`, and what was left unfinished."""
    unfinished = [n for n in disk.list(FOLDER) if n.endswith(".new")]
    for name in unfinished:
        if int(name.partition(".")[0]) < index:
            disk.remove(f"{FOLDER}/{name}")
    names = sorted(n for n in disk.list(FOLDER) if n.endswith(".snap"))
    for name in names[:-KEPT]:
        if int(name.removesuffix(".snap")) < index:
            disk.remove(f"{FOLDER}/{name}")


def _parse(content: bytes) -> tuple[SnapshotMeta, bytes] | None:
    body = memoryview(content)[4:]
    if not body:
        return None  # its checksum would be right
    if google_crc32c.value(bytes(body)) != int.from_bytes(content[:4], "big"):
        return None
    header = msgpack.Unpacker()
    header.feed(body[:HEADER_BYTES_MAX])
    index, term, membership = header.unpack()
    return SnapshotMeta(index, term, Membership.unpack(membership)), bytes(body[header.tell() :])
