"""Sort: lines, or records of fixed size, into parts of which each follows the one before.

    ring mr run sort data.txt sorted --reduces 4
    ring mr run sort records.bin sorted --record-bytes 100 --key-bytes 10

Reducer 0 has the smallest keys, the last the largest (lecture 24.8): the cuts come from a sample.
Lines are compared as bytes, whole, as `LC_ALL=C sort` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

DEFAULTS: dict[str, Any] = {"partition": "range"}


def map_chunks(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Each line is a key."""
    for chunk in chunks:
        yield from zip(chunk.removesuffix(b"\n").split(b"\n"), repeat(b""))


def sample_key(record: bytes) -> bytes:
    """The key of a line."""
    return record
