"""Damage to the files of a node that is down: what a disk may have in store for its next start.

    flip        one bit of what was written is another
    truncate    a file ends before its end
    wipe        all files are gone
    keep, put_back   the files are those of an earlier time

Works on any Storage, so that the simulation and the operator damage in the same way. A node that
starts on such files must either notice, or never have needed what is lost; it may not serve it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, Protocol

from netstack.runtime.disk import Storage

Files = dict[str, bytes]


class Browsable(Storage, Protocol):
    """A Storage that can say which files it has."""

    def paths(self) -> list[str]:
        """Of all files, in all folders, sorted."""


def keep(storage: Browsable) -> Files:
    """A copy of all files."""
    return {path: _read(storage, path) for path in storage.paths()}


def put_back(storage: Browsable, files: Files) -> str:
    """Let there be these files and no others; returns what was done."""
    for path in storage.paths():
        storage.remove(path)
    for path, data in files.items():
        _write(storage, path, data)
    return f"{len(files)} files are those of an earlier time"


def flip(storage: Browsable, rng: random.Random) -> str:
    """Change one bit among the bytes that were written (zeros are room, and hold nothing)."""
    path, data = _choose(storage, rng)
    used, bit = len(data.rstrip(b"\0")), rng.randrange(8)
    position = rng.randrange(used)
    while not data[position]:
        position = rng.randrange(used)
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    _write(storage, path, bytes(changed))
    return f"bit {bit} of byte {position} of {path} is another"


def truncate(storage: Browsable, rng: random.Random) -> str:
    """Let a file end somewhere in what was written."""
    path, data = _choose(storage, rng)
    end = rng.randrange(len(data.rstrip(b"\0")))
    _write(storage, path, data[:end])
    return f"{path} ends after {end} of {len(data)} bytes"


def wipe(storage: Browsable, rng: random.Random) -> str:
    """No files at all."""
    gone = storage.paths()
    for path in gone:
        storage.remove(path)
    return f"{len(gone)} files are gone"


ROT: Final[dict[str, Callable[[Any, random.Random], str]]] = {
    "flip": flip,
    "truncate": truncate,
    "wipe": wipe,
}


def _choose(storage: Browsable, rng: random.Random) -> tuple[str, bytes]:
    """A file that holds something; raises ValueError if none does."""
    files = [(path, data) for path, data in keep(storage).items() if any(data)]
    if not files:
        raise ValueError("there is nothing on this disk to damage")
    return rng.choice(files)


def _read(storage: Browsable, path: str) -> bytes:
    handle = storage.open(path)
    try:
        return storage.pread(handle, 0, storage.size(handle))
    finally:
        storage.close(handle)


def _write(storage: Browsable, path: str, data: bytes) -> None:
    handle = storage.open(path)
    try:
        storage.truncate(handle, 0)
        storage.pwrite(handle, 0, data)
        storage.sync(handle)
    finally:
        storage.close(handle)
