"""From inputs to splits, and from a split to its records.

A split is (path, offset, length) of one file. Splits are cut at round offsets, and where
chunks end, without looking; who reads one
finds the lines: *a line belongs to the split in which it begins*. So a split that does
not begin a file drops the rest of a line that began before it, and reads on behind its end to the
end of its last line. A gzip file is one split: nobody can begin in its middle. So is every file
of a job of `whole_files`, empty ones too.

Planning is done once, by whoever submits the job; the list of splits is part of what is submitted.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final, Protocol, cast
from weakref import WeakKeyDictionary

import fsspec
from fsspec.spec import AbstractBufferedFile

from mapreduce.errors import BadJob, RecordTooLong
from mapreduce.job import Job
from mapreduce.ring_urls import is_ring
from netstack.rpc.schema import message
from netstack.runtime.config import ConfigError

# How much of a file is in memory at a time; a little less than what a second-level cache holds.
CHUNK_BYTES: Final = 1024 * 1024

# What is read of another chunk to find the end of a line: a block of the chunk store.
AHEAD_BYTES: Final = 64 * 1024

# One line may be as long as this.
RECORD_BYTES_MAX: Final = 256 * 1024 * 1024

# Records looked at to find where to cut ranges of keys: 1,000 give parts that differ by a tenth.
SAMPLES: Final = 2000

SPLITS_MAX: Final = 200_000

_file_systems: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Of each file that is open, the file system that it is read through."""


class Locator(Protocol):
    """Who knows where the bytes of a file lie: the chunk store."""

    def locate(self, path: str) -> Sequence[tuple[int, int, Sequence[str]]]:
        """(offset, length, names of the workers that have it) of each chunk; none if unknown."""


class OfFileSystem:
    """Asks the file system, if it can say. Local files are as near to one worker as to another."""

    def locate(self, path: str) -> Sequence[tuple[int, int, Sequence[str]]]:
        """See Locator."""
        fs, name = fsspec.core.url_to_fs(path)
        locate = getattr(fs, "locate", None)
        return locate(name) if locate is not None else ()


@message
class Split:
    """A part of a file. length -1: to its end, whatever that is. hosts: workers that have it."""

    path: str
    offset: int
    length: int
    hosts: list[str]


def open_input(path: str) -> BinaryIO:
    """A file by path or URL, decompressed if its name says so."""
    fs, name = fsspec.core.url_to_fs(path)
    # Of the chunk store nothing is read ahead: that would be of a chunk that lies elsewhere.
    options = {"cache_type": "none"} if is_ring(path) else {}
    file = fs.open(name, "rb", **options)
    # An archive's file system closes the archive when nobody holds it any more.
    _file_systems[file] = fs
    if isinstance(file, AbstractBufferedFile):
        file = io.BufferedReader(file, AHEAD_BYTES)  # its own `readline` knows no limit
    return cast("BinaryIO", gzip.open(file) if path.endswith(".gz") else file)


def plan(job: Job, locator: Locator | None = None) -> list[Split]:
    """The splits of a job's input, in the order of its files; raises BadJob."""
    locator = locator or OfFileSystem()
    splits: list[Split] = []
    for pattern in job.inputs:
        found = _files(pattern)
        for path, size in found:
            splits += _split_file(job, path, size, locator)
            if len(splits) > SPLITS_MAX:
                raise BadJob(f"more than {SPLITS_MAX} splits; raise split_bytes")
    return splits


def _files(pattern: str) -> list[tuple[str, int]]:
    """(path, bytes) of the files that a pattern names, sorted; hidden ones are not input."""
    try:
        fs, path = fsspec.core.url_to_fs(pattern)
    except (ValueError, ImportError) as error:
        missing = isinstance(error, ImportError) and pattern.startswith(("http://", "https://"))
        hint = "; do: pip install ringleader[http]" if missing else ""
        raise BadJob(f"the input {pattern} cannot be reached: {error}{hint}") from None
    try:
        if any(c in path for c in "*?["):
            found = [name for name in fs.glob(path) if fs.isfile(name)]
        elif fs.isdir(path):
            found = [name for name in fs.ls(path, detail=False) if fs.isfile(name)]
            found = [name for name in found if not _hidden(name)]
        else:
            found = [path] if fs.exists(path) else []
            if not found:
                raise BadJob(f"the input {pattern} does not exist")
        if not found:
            raise BadJob(f"the input {pattern} holds no files")
        return [(_url(fs, n, pattern), fs.size(n)) for n in sorted(found)]
    except (OSError, ValueError, ConfigError) as error:
        raise BadJob(f"the input {pattern} cannot be read: {error}") from None


def _url(fs: Any, name: str, pattern: str) -> str:
    """What a file that a pattern has named is called elsewhere."""
    if "://" not in pattern:
        return name
    first, chained, rest = pattern.partition("::")
    if not chained:
        return str(fs.unstrip_protocol(name))
    # Of a chain the first link may name the file (zip://a.txt::…), or leave that to the last
    # (simplecache::file://…), whose protocol the name then has lost.
    if "://" in first:
        return f"{first.partition('://')[0]}://{name.lstrip('/')}::{rest}"
    return f"{first}::{_protocol(rest)}://{name}"


def _protocol(chain: str) -> str:
    return chain.rpartition("::")[2].partition("://")[0]


def _hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(("_", "."))


def _split_file(job: Job, path: str, size: int, locator: Locator) -> list[Split]:
    chunks = locator.locate(path)
    if job.whole_files or (path.endswith(".gz") and size):
        return [Split(path, 0, -1, _hosts(chunks, 0, size))]
    # No larger than a chunk, so that one worker may have all of a split.
    step = min([job.split_bytes, *(length for _, length, _ in chunks[:1])])
    if job.record_bytes:
        if size % job.record_bytes:
            raise BadJob(f"{path} has {size} bytes: no whole records of {job.record_bytes}")
        step = max(1, step // job.record_bytes) * job.record_bytes
    return [
        Split(path, offset, min(step, size - offset), _hosts(chunks, offset, step))
        for offset in range(0, size, step)
    ]


def _hosts(chunks: Iterable[tuple[int, int, Sequence[str]]], offset: int, length: int) -> list[str]:
    """Workers, those first that hold most of the range."""
    held: dict[str, int] = {}
    for start, size, names in chunks:
        overlap = min(offset + length, start + size) - max(offset, start)
        if overlap > 0:
            for name in names:
                held[name] = held.get(name, 0) + overlap
    return sorted(held, key=lambda name: (-held[name], name))


def chunks(split: Split, progress: Callable[[int], None] = lambda done: None) -> Iterator[bytes]:
    """The whole lines of a split, about CHUNK_BYTES at a time; raises RecordTooLong.

    progress: is told how many bytes have been dealt with so far.
    """
    with open_input(split.path) as file:
        end = None if split.length < 0 else split.offset + split.length
        rest: list[bytes] = []
        position = held = 0
        if split.offset:
            # From the byte before: if that ends a line, the first line here is ours.
            file.seek(split.offset - 1)
            position = split.offset - 1
            skipped = _to_end_of_line(file)
            position += len(skipped)
        while end is None or position < end:
            want = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - position)
            data = file.read(want)
            if not data:
                break
            position += len(data)
            if end is not None and position >= end and not data.endswith(b"\n"):
                data += _to_end_of_line(file)
            cut = data.rfind(b"\n") + 1
            if cut:
                # What was handed over is done when more is asked for.
                progress(max(0, position - len(data) - split.offset))
                yield b"".join((*rest, data[:cut])) if rest else data[:cut]
                rest, held, data = [], 0, data[cut:]
            if data:
                rest.append(data)
                held += len(data)
                _check_length(held, split.path)
        if rest:
            yield b"".join(rest)


def _to_end_of_line(file: BinaryIO) -> bytes:
    parts, size = [], 0
    while data := file.readline(CHUNK_BYTES):
        parts.append(data)
        size += len(data)
        _check_length(size, "the input")
        if data.endswith(b"\n"):
            break
    return b"".join(parts)


def _check_length(size: int, path: str) -> None:
    if size > RECORD_BYTES_MAX:
        raise RecordTooLong(f"{path} has a line of more than {RECORD_BYTES_MAX} bytes")


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Records: lines without their ends, one by one."""
    for piece in pieces:
        found = piece.split(b"\n")
        if not found[-1]:
            found.pop()
        yield from found


def sample(job: Job, splits: Sequence[Split], key_of: Callable[[bytes], Any]) -> list[bytes]:
    """Where to cut the keys so that each of `job.reduces` parts gets as many; reduces - 1 keys.

    Looks at the beginnings of evenly chosen splits; the same input gives the same cuts.
    """
    if job.reduces < 2 or not splits:
        return []
    keys: list[bytes] = []
    chosen = splits[:: max(1, len(splits) // 64)]
    share = max(1, SAMPLES // len(chosen))
    for split in chosen:
        for number, record in enumerate(_some_records(job, split)):
            if number >= share:
                break
            key = key_of(record)
            if key is not None:
                keys.append(key)
    keys.sort()
    if not keys:
        return []
    return [keys[len(keys) * part // job.reduces] for part in range(1, job.reduces)]


def _some_records(job: Job, split: Split) -> Iterator[bytes]:
    if not job.record_bytes:
        yield from lines(chunks(split))
        return
    with open_input(split.path) as file:
        file.seek(split.offset)
        data = file.read(min(split.length, SAMPLES * job.record_bytes))
    for offset in range(0, len(data), job.record_bytes):
        yield data[offset : offset + job.record_bytes]
