"""What is verified, kept so that kill -9 costs nothing: a few bytes a piece, appended.

    header   "RLTJ1\\n" | 20 bytes info-hash
    record   u32 piece | u32 CRC-32C of the record and the info-hash

A record is written after its piece. Nothing is synced: a killed process loses nothing that it has
handed to the kernel, and a machine that loses power may lose pieces and keep their records. So the
journal is believed in one thing only, which pieces are worth hashing at the next start: what it
names is verified again before it is offered to anybody, and what it does not name is fetched. A
torn or foreign tail is cut off. The journal lies beside the content and is locked: two processes
cannot fetch one torrent into one folder.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

import google_crc32c

from dht.torrent.errors import StorageError

MAGIC: Final = b"RLTJ1\n"
RECORD: Final = struct.Struct("!II")


class Journal:
    """One torrent's journal at `path`."""

    def __init__(self, path: Path, info_hash: bytes, piece_count: int) -> None:
        self.path = path
        self._info_hash = info_hash
        self._count = piece_count
        self._file = -1

    def __repr__(self) -> str:
        return f"<Journal {self.path.name} {self._info_hash.hex()[:8]}>"

    def open(self) -> list[int] | None:
        """The pieces that it names; None if there was no journal of this torrent, and is now."""
        header = MAGIC + self._info_hash
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self.path, flags, 0o644)
            self._lock()
            data = os.pread(self._file, len(header) + RECORD.size * 4 * self._count, 0)
            if not data.startswith(header):
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, header, 0)
                os.lseek(self._file, len(header), os.SEEK_SET)
                return None
            pieces = self._read(data[len(header) :])
            # Written anew, so that what was torn or came twice is gone.
            os.ftruncate(self._file, len(header))
            os.lseek(self._file, len(header), os.SEEK_SET)
            return sorted(pieces)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StorageError(
                f"{self.path.parent}: another process fetches this torrent there"
            ) from None

    def _read(self, data: bytes) -> set[int]:
        pieces: set[int] = set()
        for piece, crc in RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size]):
            if crc != self._crc(piece) or piece >= self._count:
                break
            pieces.add(piece)
        return pieces

    def _crc(self, piece: int) -> int:
        return int(google_crc32c.value(piece.to_bytes(4, "big") + self._info_hash))

    def add(self, pieces: list[int]) -> None:
        """These are verified and written."""
        try:
            os.write(self._file, b"".join(RECORD.pack(piece, self._crc(piece)) for piece in pieces))
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file; it stays, for the next start."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
