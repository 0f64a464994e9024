"""Word count, the paper's first example: how often each word occurs.

    ring mr run wordcount books/*.txt counts

A word is what stands between white space, as bytes. The mapper sees a split as pieces of whole
lines, so that splitting and counting happen in C.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

combine = sum
reduce = sum


def map_chunks(chunks: Iterator[bytes]) -> Counter[bytes]:
    """Each word, with how often it occurs in this split."""
    counts: Counter[bytes] = Counter()
    for chunk in chunks:
        counts.update(chunk.split())
    return counts
