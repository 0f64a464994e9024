"""One map: read a split, run the user's code, and leave one sorted run a part (lecture steps 3, 4).

    records ──map──▶ gathered in memory ──combine──▶ full? partition, sort, write ──▶ runs
                                                     (a thread writes while the map goes on)

The file of a map holds, for each part, the runs of all its spills. What is written is a function
of the job and the split alone: when to combine and when to spill is decided by counting what was
emitted, never by the clock or by memory in use. So every attempt writes the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final

from mapreduce import fixed
from mapreduce.blocks import Pair, pack
from mapreduce.context import Task
from mapreduce.job import Job
from mapreduce.keys import descending, key_bytes
from mapreduce.messages import MAP
from mapreduce.programs import Program
from mapreduce.splits import Split, chunks, lines

# What a pair costs beside its bytes: two objects of 33 to 60 bytes, and a place in a list or dict.
PAIR_BYTES: Final = 150

# Blocks on their way to the disk; then the map waits.
WRITES_MAX: Final = 64

first = itemgetter(0)

Runs = list[list[list[int]]]
"""For each part its runs: [offset, length, count]."""


class MapFile:
    """The file of one map's output, written by a thread in the order in which it is told to."""

    def __init__(self, file: BinaryIO, parts: int) -> None:
        self.runs: Runs = [[] for _ in range(parts)]
        self.position = 0
        self._file = file
        self._writer = ThreadPoolExecutor(1, "spill")
        self._waiting: deque[Future[int]] = deque()

    def write_run(self, part: int, blocks: Iterable[bytes], count: int) -> None:
        """One more run of a part; raises what writing an earlier one met."""
        began = self.position
        for block in blocks:
            self._waiting.append(self._writer.submit(self._file.write, block))
            self.position += len(block)
            if len(self._waiting) > WRITES_MAX:
                self._waiting.popleft().result()
        self.runs[part].append([began, self.position - began, count])

    def close(self) -> None:
        """Wait until all is written; raises what writing met."""
        self._writer.shutdown()
        while self._waiting:
            self._waiting.popleft().result()
        self._file.flush()


def run_map(
    job: Job,
    program: Program,
    split: Split,
    cuts: Sequence[bytes],
    task: Task,
    path: Path,
    *,
    skip: frozenset[int] = frozenset(),
    careful: bool = False,
) -> Runs:
    """Run one map into the file at `path`.

    careful: hand over records one by one, so that one at which the process dies is known.
    """
    task.progress[2] = max(split.length, 1)
    with path.open("wb") as file:
        out = MapFile(file, job.reduces)
        try:
            if job.record_bytes:
                fixed.map_split(job, split, cuts, task, out.write_run)
            else:
                gatherer = (Combining if program.combines else Gathering)(program, cuts, task, out)
                gatherer.gather(emitted(program, split, task, skip, careful))
                gatherer.spill()
        finally:
            out.close()
    task.own("map_output_bytes", out.position)
    return out.runs


def emitted(
    program: Program, split: Split, task: Task, skip: frozenset[int], careful: bool
) -> Iterable[Pair] | Mapping[bytes, Any]:
    """What the program makes of a split."""

    def progress(done: int) -> None:
        task.progress[1] = done

    pieces = chunks(split, progress)
    if program.chunked:
        if not ((careful or skip) and MAP in program.blames):
            return program.map_chunks(pieces, task)
        singly = (line + b"\n" for line in task.tracked(lines(pieces), skip))
        return program.map_chunks(singly, task)
    return program.map_records(task.tracked(lines(pieces), skip), task)


class Gathering:
    """Pairs as they were emitted, until they are spilled: without a combiner."""

    def __init__(self, program: Program, cuts: Sequence[bytes], task: Task, out: MapFile) -> None:
        self._program = program
        self._cuts = cuts
        self._task = task
        self._out = out
        self._stored = descending if program.job.order == "descending" else None
        self._budget = program.job.memory_bytes
        self._pairs: list[Pair] = []

    def gather(self, pairs: Iterable[Pair] | Mapping[bytes, Any]) -> None:
        """Take all, spilling whenever the budget is full."""
        if isinstance(pairs, Mapping):
            pairs = pairs.items()
        budget, size, count = self._budget, 0, 0
        append = self._pairs.append
        for key, value in pairs:
            if type(key) is not bytes:
                key = key_bytes(key)
            append((key, value))
            size += PAIR_BYTES + len(key)
            if type(value) is bytes or type(value) is str:
                size += len(value)
            if size > budget:
                count += len(self._pairs)
                self.spill()
                size, append = 0, self._pairs.append
        self._task.own("map_output_records", count + len(self._pairs))

    def spill(self) -> None:
        """Partition, sort and write what is gathered."""
        pairs, self._pairs = self._pairs, []
        if pairs:
            self.write(pairs)

    def write(self, pairs: Sequence[Pair]) -> None:
        """One run a part."""
        job, parts = self._program.job, self._out.runs
        buckets: list[list[Pair]] = [[] for _ in parts]
        if len(parts) == 1 and job.partition != "program" and "partitioner" not in job.commands:
            buckets[0] = list(pairs)
        else:
            homes = self._program.partition([key for key, _ in pairs], self._cuts)
            for home, pair in zip(homes, pairs, strict=True):
                buckets[home].append(pair)
        for part, bucket in enumerate(buckets):
            if not bucket:
                continue
            if self._stored is not None:
                bucket = [(self._stored(key), value) for key, value in bucket]
            bucket.sort(key=first)
            keys, values = zip(*bucket, strict=True)
            self._out.write_run(part, pack(keys, values), len(keys))
            self._task.own("spilled_records", len(keys))


class Combining(Gathering):
    """Values gathered by key, and made fewer by the combiner whenever there are many."""

    def __init__(self, program: Program, cuts: Sequence[bytes], task: Task, out: MapFile) -> None:
        super().__init__(program, cuts, task, out)
        self._groups: dict[bytes, list[Any]] = {}

    def gather(self, pairs: Iterable[Pair] | Mapping[bytes, Any]) -> None:
        """See Gathering. A mapping has each key once: there is nothing to combine in it."""
        if isinstance(pairs, Mapping):
            super().gather(pairs)
            return
        every, budget = self._program.combine_every, self._budget
        groups, waiting, size, count = self._groups, 0, 0, 0
        for key, value in pairs:
            if type(key) is not bytes:
                key = key_bytes(key)
            values = groups.get(key)
            if values is None:
                groups[key] = [value]
                size += PAIR_BYTES + 100 + len(key)
            else:
                values.append(value)
            if type(value) is bytes or type(value) is str:
                size += len(value)
            waiting += 1
            if waiting >= every or size > budget:
                count += waiting
                waiting, size = 0, self._combine()
                if size > budget // 2:
                    self.spill()
                    size = 0
                groups = self._groups
        self._task.own("map_output_records", count + waiting)

    def _combine(self) -> int:
        """Make the values fewer; returns the bytes that are held after it."""
        before, self._groups = self._groups, {}
        groups, size = self._groups, 0
        self._task.own("combine_input_records", sum(map(len, before.values())))
        for key, value in self._program.combine(before.items(), self._task):
            if type(key) is not bytes:
                key = key_bytes(key)
            values = groups.get(key)
            if values is None:
                groups[key] = [value]
                size += PAIR_BYTES + 100 + len(key)
            else:
                values.append(value)
            size += len(value) if type(value) is bytes or type(value) is str else 32
        self._task.own("combine_output_records", sum(map(len, groups.values())))
        return size

    def spill(self) -> None:
        """See Gathering."""
        super().spill()
        if self._groups:
            self._combine()
            groups, self._groups = self._groups, {}
            self.write([(key, value) for key, values in groups.items() for value in values])


def run_map_only(
    job: Job,
    program: Program,
    split: Split,
    task: Task,
    write: Callable[[bytes], object],
    *,
    skip: frozenset[int] = frozenset(),
    careful: bool = False,
) -> None:
    """A map whose pairs are the output, for jobs without reduces."""
    task.progress[2] = max(split.length, 1)
    pairs = emitted(program, split, task, skip, careful)
    if isinstance(pairs, Mapping):
        pairs = iter(pairs.items())
    write_lines(program.map_only(pairs, task), task, write)


def write_lines(lines: Iterable[bytes], task: Task, write: Callable[[bytes], object]) -> None:
    """Lines with their ends, thousands at a time."""
    count = 0
    for portion in portions(lines):
        count += len(portion)
        portion.append(b"")
        write(b"\n".join(portion))
    task.own(f"{'map' if task.kind == 'map' else 'reduce'}_output_lines", count)


def portions(items: Iterable[bytes], size: int = 4096) -> Iterator[list[bytes]]:
    """Lists of at most `size`."""
    portion: list[bytes] = []
    append = portion.append
    for item in items:
        append(item)
        if len(portion) >= size:
            yield portion
            portion = []
            append = portion.append
    if portion:
        yield portion
