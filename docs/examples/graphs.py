"""Graphs to run:  ring mr graph docs/examples/graphs.py:wordcount --draw graph.svg"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from operator import add
from pathlib import Path

from mapreduce.graph.client import Delayed, delayed


@delayed
def count(path: str) -> Counter[str]:
    """The words of one file."""
    return Counter(Path(path).read_text(encoding="utf-8").split())


@delayed
def merge(one: Counter[str], other: Counter[str]) -> Counter[str]:
    """Two counts as one."""
    return one + other


@delayed
def top(counts: Counter[str]) -> list[tuple[str, int]]:
    """The ten words that come most often."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:10]


def wordcount() -> Delayed:
    """A tree of sums over this project's own chapters."""
    root = Path(__file__).resolve().parents[2]
    counts = [count(str(path)) for path in sorted(root.glob("*/README.md"))]
    while len(counts) > 1:
        pairs = zip(counts[::2], [*counts[1::2], None], strict=False)
        counts = [merge(one, other) if other is not None else one for one, other in pairs]
    return top(counts[0])


# The same in the form of Dask's graphs: squares, and their sum.
squares = {
    **{f"square-{i}": (pow, i, 2) for i in range(8)},
    "sum": (sum, [f"square-{i}" for i in range(8)]),
    "twice": (add, "sum", "sum"),
}


def factorial() -> Delayed:
    """A chain: fused, it is one task."""
    return reduce(lambda made, i: delayed(multiply)(made, i), range(2, 11), delayed(int)(1))


def multiply(a: int, b: int) -> int:
    """a × b."""
    return a * b
