"""Making a .torrent: files are read once, from front to back, and hashed piece by piece."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dht.torrent.errors import BadTorrent, StorageError
from dht.torrent.metainfo import FILES_MAX, make_info, piece_length_for
from dht.torrent.storage import sha1

Progress = Callable[[int, int], None]
"""(bytes hashed, of how many)."""


def create(
    path: Path,
    *,
    piece_length: int | None = None,
    private: bool = False,
    tell: Progress | None = None,
) -> bytes:
    """The info dictionary of a file or folder; raises BadTorrent or StorageError.

    Files of a folder come in the order of their names, so the same content has the same info-hash.
    """
    path = path.resolve()
    try:
        files = _files(path)
        total = sum(length for _, length in files)
        if not total:
            raise BadTorrent(f"{path} has no content")
        size = piece_length or piece_length_for(total)
        hashes = b"".join(_hashes(path, files, size, total, tell))
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror}") from None
    return make_info(path.name, files, size, hashes, private=private)


def _files(path: Path) -> list[tuple[tuple[str, ...], int]]:
    if path.is_file():
        return [((), path.stat().st_size)]
    if not path.is_dir():
        raise StorageError(f"{path}: there is no such file or folder")
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            # A link could lead anywhere, and what is no file has no length.
            if file.is_file() and not file.is_symlink() and not name.endswith(".ringleader"):
                found.append((file.relative_to(path).parts, file.stat().st_size))
    if len(found) > FILES_MAX:
        raise BadTorrent(f"{path} has more than {FILES_MAX} files")
    return sorted(found)


def _hashes(
    path: Path,
    files: list[tuple[tuple[str, ...], int]],
    size: int,
    total: int,
    tell: Progress | None,
) -> Iterator[bytes]:
    piece, done = bytearray(), 0
    for part in _content(path, files, size):
        piece += part
        while len(piece) >= size:
            yield sha1(memoryview(piece)[:size])
            done += size
            del piece[:size]
            if tell is not None:
                tell(done, total)
    if piece:
        yield sha1(piece)


def _content(path: Path, files: list[tuple[tuple[str, ...], int]], size: int) -> Iterator[bytes]:
    for steps, length in files:
        left = length
        with path.joinpath(*steps).open("rb") as file:
            while left:
                part = file.read(min(left, max(size, 1 << 20)))
                if not part:
                    raise BadTorrent(f"{path.joinpath(*steps)} became shorter meanwhile")
                left -= len(part)
                yield part
