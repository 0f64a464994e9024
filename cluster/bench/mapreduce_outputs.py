"""What a job of `ring bench mapreduce` has written, as one checksum: all who ran it must agree.

Each peer writes in its own way: mrjob in JSON, others as we do, in any number of parts. So an
output is read back as lines `key TAB value`, and hashed: sorted, for word count and index; in the
order in which it stands, for a sort. mrjob sorts each part and not the whole: its parts are merged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path


def checksum(case: str, out: Path, *, as_json: bool = False) -> str:
    """Of the output at `out`, a file or a folder of parts."""
    files = sorted(out.glob("part-*")) if out.is_dir() else [out]
    if case == "sort" and not as_json:
        return _hashed(_blocks(files))
    lines = [line for path in files for line in _lines(path, as_json)]
    return _hashed(line + b"\n" for line in sorted(lines))


def _hashed(blocks: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for block in blocks:
        sha.update(block)
    return sha.hexdigest()


def _blocks(files: Iterable[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block


def _lines(path: Path, as_json: bool) -> Iterator[bytes]:
    lines = path.read_bytes().split(b"\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        yield _from_json(line) if as_json else line


def _from_json(line: bytes) -> bytes:
    """A line as mrjob writes it: JSON, a tab, JSON."""
    key, _, value = line.partition(b"\t")
    word: str = json.loads(key)
    found = json.loads(value)
    if found is None:
        return word.encode()
    if isinstance(found, list):
        found = " ".join(f"{name}:{count}" for name, count in found)
    return f"{word}\t{found}".encode()
