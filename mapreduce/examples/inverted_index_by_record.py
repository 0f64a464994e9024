"""An inverted index as the paper writes it: (word, file) for every word of every line.

The output is that of inverted_index; slower, and simple.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from mapreduce.context import Task


def map(line: bytes, task: Task) -> Iterator[tuple[bytes, str]]:
    """One pair a word."""
    name = task.input.rpartition("/")[2]
    for word in line.split():
        yield word, name


def reduce(key: bytes, values: Iterable[str]) -> Iterator[tuple[bytes, bytes]]:
    """One line a word."""
    counts = sorted(Counter(values).items())
    yield key, " ".join(f"{name}:{count}" for name, count in counts).encode()
