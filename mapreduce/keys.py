"""Keys: bytes, one order everywhere, and a hash that is the same in every process.

Python's own `hash` of bytes differs from process to process (PYTHONHASHSEED), so two maps would
send one key to two reducers. CRC-32 is the same everywhere and costs 0.1 µs.

Descending order is ascending order of complemented keys. A complement alone would keep a prefix
before its extensions; so a key is ended first: 00 becomes 00 FF, and 00 00 is put behind it.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

from mapreduce.errors import BadJob

_COMPLEMENT: Final = bytes(255 - i for i in range(256))


def key_bytes(key: Any) -> bytes:
    """A key as it is stored: text as UTF-8; raises BadJob for what has no order of bytes."""
    if type(key) is bytes:
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    raise BadJob(
        f"a key is bytes or str, not {type(key).__name__}: keys are compared byte by byte, so say"
        f" how {key!r:.100} is to be written, b'%08d' perhaps"
    )


def hash_partition(keys: Sequence[bytes], reduces: int) -> list[int]:
    """The parts that keys go to."""
    crc32 = zlib.crc32
    return [crc32(key) % reduces for key in keys]


def range_partition(keys: Sequence[bytes], cuts: Sequence[bytes]) -> list[int]:
    """The same by ranges: part n holds what is at least cuts[n-1] and less than cuts[n]."""
    return [bisect_right(cuts, key) for key in keys]


def descending(key: bytes) -> bytes:
    """A key whose ascending order is the descending order of `key`."""
    return (key.replace(b"\0", b"\0\xff") + b"\0\0").translate(_COMPLEMENT)


def from_descending(stored: bytes) -> bytes:
    """The key that `descending` was given."""
    return stored.translate(_COMPLEMENT)[:-2].replace(b"\0\xff", b"\0")
