"""The state of a training run as bytes: on disk, and on the way to a newcomer.

    magic "RTC1" · CRC-32C of the rest · length · msgpack [job, step, [[name, dtype, shape, bytes]
    …]]

A file is written beside its place, synced, and renamed into it: it is there whole or not at all.
Bytes that are not what was written are refused, whatever they look like. The last KEPT are kept,
so that a damaged newest one costs some steps and not the run.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from math import prod
from typing import Final

import google_crc32c
import msgpack
import numpy as np

from ddp.training.autograd import Array
from ddp.training.errors import BadCheckpoint
from netstack.runtime.disk import Disk

MAGIC: Final = b"RTC1"
HEADER: Final = struct.Struct(">4sIQ")
FOLDER: Final = "checkpoints"
KEPT: Final = 2
# What an array may be made of.
DTYPES: Final = frozenset({"float32", "float64", "int64"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Parameters and optimizer before `step`. `job` says of which run."""

    job: str
    step: int
    arrays: dict[str, Array] = field(repr=False)

    def encode(self) -> bytes:
        """As bytes."""
        arrays = [
            [name, array.dtype.name, list(array.shape), np.ascontiguousarray(array).tobytes()]
            for name, array in self.arrays.items()
        ]
        body: bytes = msgpack.packb([self.job, self.step, arrays])
        return HEADER.pack(MAGIC, google_crc32c.value(body), len(body)) + body

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """From bytes; raises BadCheckpoint."""
        if len(data) < HEADER.size:
            raise BadCheckpoint(f"{len(data)} bytes are no checkpoint")
        magic, crc, length = HEADER.unpack_from(data)
        body = data[HEADER.size :]
        if magic != MAGIC:
            raise BadCheckpoint(f"it begins with {magic!r}, not {MAGIC!r}")
        if len(body) != length:
            raise BadCheckpoint(f"{length} bytes were written, {len(body)} are there")
        if google_crc32c.value(body) != crc:
            raise BadCheckpoint("its checksum is not that of its contents")
        try:
            job, step, arrays = msgpack.unpackb(body)
            return cls(job, step, {name: _array(*rest) for name, *rest in arrays})
        except (ValueError, TypeError) as error:
            raise BadCheckpoint(f"its contents are no checkpoint: {error}") from None


def _array(dtype: str, shape: list[int], data: bytes) -> Array:
    if dtype not in DTYPES:
        raise ValueError(f"an array of {dtype!r}")
    if prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for a {dtype} array of {shape}")
    return np.frombuffer(data, dtype).reshape(shape)


class Checkpoints:
    """Those of one node, on its disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.refused: list[str] = []  # what was damaged, and how

    def __repr__(self) -> str:
        return f"<Checkpoints {self._names()}>"

    def save(self, snapshot: Snapshot) -> None:
        """Durably; older ones beyond KEPT are removed. Raises OSError, and keeps what was there."""
        self._disk.replace(f"{FOLDER}/{snapshot.step:010d}.ckpt", snapshot.encode())
        for name in self._names()[:-KEPT]:
            self._disk.remove(f"{FOLDER}/{name}")

    def newest(self, job: str) -> Snapshot | None:
        """The newest that is whole, and of this job; the others are in `refused`."""
        for name in reversed(self._names()):
            try:
                found = Snapshot.decode(self._disk.read(f"{FOLDER}/{name}"))
                if found.job != job:
                    raise BadCheckpoint("it is of another job")
                if name != f"{found.step:010d}.ckpt":
                    raise BadCheckpoint(f"it is of step {found.step}")
                return found
            except BadCheckpoint as error:
                self.refused.append(f"{name}: {error}")
        return None

    def _names(self) -> list[str]:
        return [name for name in self._disk.list(FOLDER) if name.endswith(".ckpt")]
