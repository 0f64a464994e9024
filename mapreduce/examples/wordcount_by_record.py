"""Word count as the paper writes it: (word, 1) for every word of every line. Slower, and simple."""

from __future__ import annotations

from collections.abc import Iterator

combine = sum
reduce = sum


def map(line: bytes) -> Iterator[tuple[bytes, int]]:
    """One pair a word."""
    for word in line.split():
        yield word, 1
