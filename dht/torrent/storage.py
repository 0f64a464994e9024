"""Content on disk: pieces in, pieces out, wherever the files' borders lie.

All calls but `read_now` block, and are made in a thread (pieces.py). A Storage belongs to one
thread: each has its own, and its own few open files. Files are made sparse at their full length
when the first byte is written. Paths come from `metainfo.parse`, which lets none lead out of the
folder; a symbolic link in the way is refused here, by the kernel (O_NOFOLLOW).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dht.torrent.errors import StorageError
from dht.torrent.metainfo import Metainfo
from dht.torrent.shape import BLOCK

OPEN_MAX: Final = 64  # files that stay open


class Storage:
    """The files of one torrent below `folder`."""

    def __init__(self, metainfo: Metainfo, folder: Path) -> None:
        self.metainfo = metainfo
        self.folder = folder
        self._open: dict[tuple[int, bool], int] = {}

    def __repr__(self) -> str:
        return f"<Storage {self.folder / self.metainfo.name} open={len(self._open)}>"

    def path(self, number: int) -> Path:
        """Where a file of the torrent lies."""
        return self.folder.joinpath(*self.metainfo.files[number].path)

    def _file(self, number: int, *, write: bool) -> int:
        key = (number, write)
        found = self._open.get(key)
        if found is not None:
            return found
        if len(self._open) >= OPEN_MAX:
            os.close(self._open.pop(next(iter(self._open))))
        path = self.path(number)
        try:
            if write:
                self._refuse_links(number)
                path.parent.mkdir(parents=True, exist_ok=True)
                opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
                length = self.metainfo.files[number].length
                if os.fstat(opened).st_size != length:
                    os.ftruncate(opened, length)
            else:
                opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from None
        self._open[key] = opened
        return opened

    def _refuse_links(self, number: int) -> None:
        """A folder of the torrent that is a link leads elsewhere."""
        path = self.folder
        for step in self.metainfo.files[number].path[:-1]:
            path = path / step
            if path.is_symlink():
                raise StorageError(f"{path} is a symbolic link, and will not be followed")

    def write(self, piece: int, data: memoryview) -> None:
        """Write a verified piece; raises StorageError."""
        at = 0
        for number, start, length in self.metainfo.extents(
            piece * self.metainfo.piece_length, len(data)
        ):
            if not self.metainfo.files[number].pad:
                self._write_all(number, data[at : at + length], start)
            at += length

    def _write_all(self, number: int, data: memoryview, start: int) -> None:
        opened = self._file(number, write=True)
        try:
            while data:
                written = os.pwrite(opened, data, start)
                data, start = data[written:], start + written
        except OSError as error:
            raise StorageError(f"{self.path(number)}: {error.strerror}") from None

    def read(self, piece: int) -> bytes:
        """A piece; raises StorageError if it is not all there."""
        size = self.metainfo.shape.piece_size(piece)
        extents = self.metainfo.extents(piece * self.metainfo.piece_length, size)
        parts = [self._read(*extent) for extent in extents]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read(self, number: int, start: int, length: int) -> bytes:
        if self.metainfo.files[number].pad:
            return bytes(length)
        try:
            data = os.pread(self._file(number, write=False), length, start)
        except OSError as error:
            raise StorageError(f"{self.path(number)}: {error.strerror}") from None
        if len(data) != length:
            raise StorageError(f"{self.path(number)} ends at {start + len(data)}")
        return data

    def read_now(self, piece: int) -> bytearray | None:
        """A piece, if the kernel has all of it in memory; None otherwise. Does not block."""
        size = self.metainfo.shape.piece_size(piece)
        data, at = bytearray(size), 0
        for number, start, length in self.metainfo.extents(
            piece * self.metainfo.piece_length, size
        ):
            if not self.metainfo.files[number].pad:
                part = memoryview(data)[at : at + length]
                try:
                    read = os.preadv(self._file(number, write=False), [part], start, os.RWF_NOWAIT)
                except (OSError, StorageError):
                    return None  # whoever asks the slow way is told why
                if read != length:
                    return None
            at += length
        return data

    def is_right(self, piece: int) -> bool:
        """Whether what lies there has the right hash."""
        try:
            data = self.read(piece)
        except StorageError:
            return False
        return sha1(data) == self.metainfo.piece_hash(piece)

    def verify(self, pieces: list[int], tell: Callable[[int], None] | None = None) -> bytearray:
        """One byte a piece: which of `pieces` are there and right."""
        have = bytearray(self.metainfo.piece_count)
        for done, piece in enumerate(pieces, 1):
            have[piece] = self.is_right(piece)
            if tell is not None:
                tell(done)
        return have

    def make_empty_files(self) -> None:
        """Files of no bytes belong to no piece, and are made when all else is there."""
        for number, file in enumerate(self.metainfo.files):
            if not file.length and not file.pad:
                self._file(number, write=True)

    def close(self) -> None:
        """Close the files."""
        for opened in self._open.values():
            os.close(opened)
        self._open.clear()


def sha1(data: bytes | bytearray | memoryview) -> bytes:
    """BitTorrent's hash: it names things, and secures them as far as SHA-1 still does."""
    return hashlib.sha1(data, usedforsecurity=False).digest()


def block_hashes(data: memoryview) -> dict[int, bytes]:
    """The SHA-1 of each block of a piece, by its beginning."""
    return {begin: sha1(data[begin : begin + BLOCK]) for begin in range(0, len(data), BLOCK)}
