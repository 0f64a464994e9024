"""A .torrent: what the content is called, how long it is, and the SHA-1 of each piece (BEP 3).

                 piece 0      piece 1      piece 2   (the last may be short)
    content   |————————————|————————————|———————|
    files     |— a —|———————— b ————————|—— c ——|      one after the other
    blocks    |—|—|—|—|…                               16 KiB: what one request asks for

A torrent comes from a stranger, so `parse` trusts nothing: a name may not lead out of the folder,
no two files may be one, lengths are bounded, and the pieces must cover the content exactly. The
info-hash, by which a swarm is known, is the SHA-1 of the `info` dictionary's bytes as they came.

Also read: tiers of trackers (BEP 12), the private flag (BEP 27), pad files (BEP 47). Not read:
version 2 (BEP 52) without the version 1 keys, which is refused with a sentence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from dht.torrent.bencode import decode, encode, spans
from dht.torrent.errors import BadTorrent, Malformed
from dht.torrent.shape import Shape

HASH: Final = 20  # bytes of a SHA-1

TORRENT_MAX: Final = 32 << 20  # bytes of a .torrent
PIECES_MAX: Final = 1 << 20
PIECE_LENGTH_MAX: Final = 64 << 20
FILES_MAX: Final = 100_000
CONTENT_MAX: Final = 1 << 50
NAME_MAX: Final = 255  # bytes: what file systems take
TRACKERS_MAX: Final = 100

# 64 to 512 KiB in the lecture. BEP 3's usual 256 KiB, more where the hashes would be many.
PIECE_LENGTH: Final = 256 << 10
PIECES_WANTED: Final = 4096


@dataclass(frozen=True, slots=True)
class File:
    """One file of the content: `path` below the folder, and where it lies in the content.

    A pad file has no bytes of its own: zeros, which are never stored.
    """

    path: tuple[str, ...]
    length: int
    offset: int
    pad: bool = False


class Extent(NamedTuple):
    """A part of a file: `length` bytes from `start` in file number `file`."""

    file: int
    start: int
    length: int


@dataclass(frozen=True)
class Metainfo:
    """All that a .torrent says. `info` is its dictionary as bytes: what magnet links exchange."""

    info: bytes
    name: str
    piece_length: int
    hashes: bytes
    files: tuple[File, ...]
    private: bool = False
    tiers: tuple[tuple[str, ...], ...] = ()
    comment: str = ""
    single: bool = True  # one file called `name`, not a folder of that name

    def __repr__(self) -> str:
        return f"<Metainfo {self.name!r} {self.info_hash.hex()[:8]} pieces={self.piece_count}>"

    @cached_property
    def info_hash(self) -> bytes:
        """SHA-1 of `info`: the name of the swarm."""
        return hashlib.sha1(self.info, usedforsecurity=False).digest()

    @cached_property
    def length(self) -> int:
        """Bytes of the whole content."""
        return sum(file.length for file in self.files)

    @cached_property
    def piece_count(self) -> int:
        """How many pieces there are."""
        return len(self.hashes) // HASH

    @cached_property
    def shape(self) -> Shape:
        """How the content is cut."""
        return Shape(self.piece_count, self.piece_length, self.length)

    def piece_hash(self, piece: int) -> bytes:
        """The SHA-1 that it must have."""
        return self.hashes[piece * HASH : (piece + 1) * HASH]

    def extents(self, offset: int, length: int) -> list[Extent]:
        """Which parts of which files `length` bytes of content at `offset` are; no pads' twice."""
        found: list[Extent] = []
        number = self._file_at(offset)
        while length > 0:
            file = self.files[number]
            start = offset - file.offset
            part = min(length, file.length - start)
            if part > 0:
                found.append(Extent(number, start, part))
                offset, length = offset + part, length - part
            number += 1
        return found

    def _file_at(self, offset: int) -> int:
        import bisect

        return bisect.bisect_right(self._offsets, offset) - 1

    @cached_property
    def _offsets(self) -> list[int]:
        return [file.offset for file in self.files]


def piece_length_for(length: int) -> int:
    """A power of two that makes at most PIECES_WANTED pieces, from 256 KiB up to 16 MiB."""
    size = PIECE_LENGTH
    while length > size * PIECES_WANTED and size < 16 << 20:
        size *= 2
    return size


def make_info(
    name: str,
    files: Sequence[tuple[tuple[str, ...], int]],
    piece_length: int,
    hashes: bytes,
    *,
    private: bool = False,
) -> bytes:
    """The `info` dictionary as bytes; `files` are (path, length), one with path () is the content.

    What it makes is what `parse_info` accepts, or it raises BadTorrent.
    """
    info: dict[bytes, Any] = {
        b"name": name.encode(),
        b"piece length": piece_length,
        b"pieces": hashes,
    }
    if len(files) == 1 and not files[0][0]:
        info[b"length"] = files[0][1]
    else:
        info[b"files"] = [
            {b"length": length, b"path": [step.encode() for step in path]} for path, length in files
        ]
    if private:
        info[b"private"] = 1
    data = encode(info)
    parse_info(data)
    return data


def make_torrent(info: bytes, trackers: Iterable[str] = (), comment: str = "") -> bytes:
    """A .torrent around an `info` dictionary; each tracker is a tier of its own."""
    urls = list(trackers)
    outer: dict[bytes, Any] = {b"created by": b"ringleader"}
    if comment:
        outer[b"comment"] = comment.encode()
    if urls:
        outer[b"announce"] = urls[0].encode()
    if len(urls) > 1:
        outer[b"announce-list"] = [[url.encode()] for url in urls]
    # `info` goes in as it is: its bytes are its name.
    outer[b"info"] = 0
    parts = encode(outer)
    start, end = spans(parts)[b"info",]
    return parts[:start] + info + parts[end:]


def parse(data: bytes) -> Metainfo:
    """What a .torrent says; raises BadTorrent, with the reason as a sentence."""
    if len(data) > TORRENT_MAX:
        raise BadTorrent(f"a .torrent of more than {TORRENT_MAX >> 20} MiB")
    try:
        outer, where = decode(data), spans(data)
    except Malformed as error:
        raise BadTorrent(f"not a .torrent: {error}") from None
    if not isinstance(outer, dict) or not isinstance(outer.get(b"info"), dict):
        raise BadTorrent("not a .torrent: it has no info dictionary")
    start, end = where[b"info",]
    comment = outer.get(b"comment", b"")
    return parse_info(
        data[start:end],
        tiers=_tiers(outer),
        comment=comment.decode(errors="replace") if isinstance(comment, bytes) else "",
    )


def parse_info(
    data: bytes, *, tiers: tuple[tuple[str, ...], ...] = (), comment: str = ""
) -> Metainfo:
    """What an `info` dictionary says; raises BadTorrent."""
    try:
        info = decode(data)
    except Malformed as error:
        raise BadTorrent(f"no info dictionary: {error}") from None
    if not isinstance(info, dict):
        raise BadTorrent("the info is no dictionary")
    if b"pieces" not in info and b"meta version" in info:
        raise BadTorrent("a version 2 torrent without version 1 keys is not supported")
    name = _name(info.get(b"name"))
    single = b"length" in info
    if single == (b"files" in info):
        raise BadTorrent("a torrent has either a length or a list of files")
    files = (File((name,), _length(info[b"length"]), 0),) if single else _files(info, name)
    piece_length = info.get(b"piece length")
    if not isinstance(piece_length, int) or not 1 <= piece_length <= PIECE_LENGTH_MAX:
        raise BadTorrent(f"the piece length must be 1 to {PIECE_LENGTH_MAX}, not {piece_length!r}")
    hashes = info.get(b"pieces")
    if not isinstance(hashes, bytes) or len(hashes) % HASH:
        raise BadTorrent("the pieces' hashes are no multiple of 20 bytes")
    total = sum(file.length for file in files)
    if not 0 < total <= CONTENT_MAX:
        raise BadTorrent(f"content of {total} bytes")
    count = -(-total // piece_length)
    if count > PIECES_MAX or len(hashes) != count * HASH:
        raise BadTorrent(f"{total} bytes are {count} pieces, and {len(hashes) // HASH} have hashes")
    private = info.get(b"private") == 1
    return Metainfo(data, name, piece_length, hashes, files, private, tiers, comment, single=single)


def _length(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= CONTENT_MAX:
        raise BadTorrent(f"a file of length {value!r}")
    return value


def _name(value: Any) -> str:
    """A name for one file or folder that leads nowhere else; raises BadTorrent."""
    if not isinstance(value, bytes) or not value:
        raise BadTorrent("a file without a name")
    if len(value) > NAME_MAX:
        raise BadTorrent(f"a name of more than {NAME_MAX} bytes")
    try:
        name = value.decode()
    except UnicodeDecodeError:
        raise BadTorrent(f"the name {value!r} is not UTF-8") from None
    if name in (".", "..") or any(c in "/\\" or ord(c) < 32 or ord(c) == 127 for c in name):
        raise BadTorrent(f"the name {name!r} would lead out of the folder")
    return name


def _files(info: dict[bytes, Any], name: str) -> tuple[File, ...]:
    listed = info[b"files"]
    if not isinstance(listed, list) or not 0 < len(listed) <= FILES_MAX:
        raise BadTorrent(f"a torrent has 1 to {FILES_MAX} files")
    files: list[File] = []
    offset = 0
    for entry in listed:
        path = entry.get(b"path") if isinstance(entry, dict) else None
        if not isinstance(path, list) or not path:
            raise BadTorrent("a file without a path")
        attributes = entry.get(b"attr", b"")
        if not isinstance(attributes, bytes) or b"l" in attributes:
            raise BadTorrent("a symbolic link: it could lead anywhere")
        file = File(
            (name, *(_name(step) for step in path)),
            _length(entry.get(b"length")),
            offset,
            pad=b"p" in attributes,
        )
        files.append(file)
        offset += file.length
    _refuse_overlaps(files)
    return tuple(files)


def _refuse_overlaps(files: Sequence[File]) -> None:
    taken: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    for file in files:
        if file.pad:
            continue
        if file.path in taken:
            raise BadTorrent(f"the file {'/'.join(file.path)!r} comes twice")
        taken.add(file.path)
        folders.update(file.path[:depth] for depth in range(1, len(file.path)))
    if both := taken & folders:
        raise BadTorrent(f"{'/'.join(min(both))!r} is a file and a folder")


def _tiers(outer: dict[bytes, Any]) -> tuple[tuple[str, ...], ...]:
    """BEP 12: with an announce-list, `announce` is ignored. What is no URL is left out."""
    listed = outer.get(b"announce-list")
    if not isinstance(listed, list) or not listed:
        listed = [[outer.get(b"announce")]]
    tiers: list[tuple[str, ...]] = []
    for tier in listed[:TRACKERS_MAX]:
        if isinstance(tier, list):
            urls = [url.decode() for url in tier if isinstance(url, bytes) and url.isascii()]
            tiers.append(tuple(url for url in urls[:TRACKERS_MAX] if url))
    return tuple(tier for tier in tiers if tier)
