"""The k-way merge of sorted runs, by sorting them together a stretch at a time.

A heap of k runs costs a comparison in Python for each record and each level. Instead: of each run
take what is certainly smaller than all that is still unread, put it one behind the other, and sort.
Timsort finds the runs in it and merges them in C.

    bound = the smallest of the last keys that are loaded, over all runs with more to come
    every record below `bound` is in memory already; the next block of any run holds none

Where nothing is below the bound, one key fills whole blocks: its records are passed on run by run.

The merge is stable: equal keys come in the order of their runs, so the output does not depend on
who fetched what first. More than FAN_IN runs are first merged into fewer, neighbours with
neighbours, so that memory is bounded by FAN_IN blocks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final

from mapreduce.blocks import Block, Pair, Run, RunWriter, read_blocks

# Blocks of half a megabyte, a few times that as objects: about 100 MB at the most.
FAN_IN: Final = 48

first = itemgetter(0)


class _Cursor:
    """Where one run is being read."""

    __slots__ = ("_blocks", "_next", "at", "keys", "more", "values")

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self.keys: Sequence[bytes] = ()
        self.values: Sequence[Any] = ()
        self.at = 0
        self._next = next(blocks, None)
        self.load()

    def load(self) -> bool:
        """The next block; False at the end."""
        block = self._next
        if block is None:
            self.keys, self.values, self.at, self.more = (), (), 0, False
            return False
        self.keys, self.values = block
        self.at = 0
        self._next = next(self._blocks, None)
        self.more = self._next is not None
        return True

    def take(self, end: int) -> Iterator[Pair]:
        """The pairs up to `end` of this block."""
        start, self.at = self.at, end
        return zip(self.keys[start:end], self.values[start:end], strict=True)


def merge(runs: Sequence[Iterator[Block]]) -> Iterator[list[Pair]]:
    """All pairs of sorted runs, sorted and stable, a stretch at a time."""
    cursors = [_Cursor(blocks) for blocks in runs]
    while cursors := [c for c in cursors if c.at < len(c.keys) or c.load()]:
        unread = [cursor.keys[-1] for cursor in cursors if cursor.more]
        if not unread:
            yield _sorted(c.take(len(c.keys)) for c in cursors)
            return
        bound = min(unread)
        ends = [bisect_left(c.keys, bound, c.at) for c in cursors]
        if any(end > c.at for c, end in zip(cursors, ends, strict=True)):
            yield _sorted(c.take(end) for c, end in zip(cursors, ends, strict=True))
        else:
            for cursor in cursors:
                yield from _all_of(bound, cursor)


def _sorted(parts: Iterator[Iterator[Pair]]) -> list[Pair]:
    pairs = list(chain.from_iterable(parts))
    pairs.sort(key=first)
    return pairs


def _all_of(key: bytes, cursor: _Cursor) -> Iterator[list[Pair]]:
    """The pairs of one key in one run, however many blocks it fills."""
    while True:
        end = bisect_right(cursor.keys, key, cursor.at)
        if end > cursor.at:
            yield list(cursor.take(end))
        if end < len(cursor.keys) or not cursor.load():
            return


def merge_files(
    runs: Sequence[Run],
    scratch: Path,
    fan_in: int = FAN_IN,
    combine: Callable[[Iterator[list[Pair]]], Iterator[Pair]] = chain.from_iterable,
) -> Iterator[list[Pair]]:
    """The merge of runs on disk; `scratch` takes what stands between when there are very many.

    combine: what to make of pairs on their way into the runs between.
    """
    level = 0
    while len(runs) > fan_in:
        path = scratch / f"merge-{level}"
        with path.open("wb") as out:
            writer = RunWriter(out, str(path))
            runs = [
                writer.write_pairs(combine(_open_and_merge(runs[i : i + fan_in])))
                for i in range(0, len(runs), fan_in)
            ]
        if level:
            (scratch / f"merge-{level - 1}").unlink()
        level += 1
    yield from _open_and_merge(runs)


def _open_and_merge(runs: Sequence[Run]) -> Iterator[list[Pair]]:
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for run in runs:
            if run.path not in files:
                files[run.path] = stack.enter_context(Path(run.path).open("rb"))
        yield from merge([read_blocks(files[run.path], run) for run in runs])
