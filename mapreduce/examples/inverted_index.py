"""An inverted index: for each word the files in which it occurs, and how often in each.

    ring mr run inverted_index books/*.txt index

A line is `word TAB file:count file:count …`, files in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from mapreduce.context import Task

Posting = tuple[str, int]


def map_chunks(chunks: Iterator[bytes], task: Task) -> dict[bytes, list[Posting]]:
    """Each word of this split, with the one posting that it makes."""
    counts: Counter[bytes] = Counter()
    for chunk in chunks:
        counts.update(chunk.split())
    name = task.input.rpartition("/")[2]
    return {word: [(name, count)] for word, count in counts.items()}


def reduce(key: bytes, values: Iterable[list[Posting]]) -> Iterator[tuple[bytes, bytes]]:
    """One line a word."""
    postings: dict[str, int] = {}
    for posting in values:
        for name, count in posting:
            postings[name] = postings.get(name, 0) + count
    yield key, " ".join(f"{name}:{n}" for name, n in sorted(postings.items())).encode()
