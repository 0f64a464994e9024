"""Records of fixed size: the vectorised path, in which no record becomes an object.

A split is one array of shape (records, record_bytes). Keys are compared as big-endian numbers of
eight bytes: one argsort on the first of them, and where they tie, on the rest. Rows are gathered
and written as they are. This is what makes a sort as fast as one written in C.

Stable: records with equal keys keep the order of their splits and their place in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from mapreduce.blocks import Run, frame, read_payloads
from mapreduce.context import Task
from mapreduce.errors import BadJob
from mapreduce.job import Job
from mapreduce.splits import Split, open_input

Rows = npt.NDArray[np.uint8]

# A block of records on its way to the disk or the network.
BLOCK_BYTES: Final = 512 * 1024

# Sorting needs the rows, an order of 8 bytes a row, and the gathered rows of one block: so a
# window of a third of the budget keeps within it.
WINDOWS: Final = 3


def rows_of(data: bytes | bytearray | memoryview, record_bytes: int) -> Rows:
    """The records of a buffer; not copied."""
    return np.frombuffer(data, np.uint8).reshape(-1, record_bytes)


def _words(rows: Rows, key_bytes: int) -> list[npt.NDArray[np.uint64]]:
    """The keys as numbers, most significant first; eight bytes each, the last padded."""
    words = []
    for start in range(0, key_bytes, 8):
        width = min(8, key_bytes - start)
        padded = np.zeros((len(rows), 8), np.uint8)
        padded[:, :width] = rows[:, start : start + width]
        words.append(padded.view(">u8").ravel().astype(np.uint64))
    return words


def order_of(rows: Rows, key_bytes: int) -> npt.NDArray[np.intp]:
    """Indices that sort the rows by their keys; stable."""
    words = _words(rows, key_bytes)
    order = np.argsort(words[0])
    if len(order) < 2:
        return order
    head = words[0][order]
    tied = head[1:] == head[:-1]
    ties = int(np.count_nonzero(tied))
    if ties > len(order) // 8:
        return np.lexsort(words[::-1])
    if ties:
        _settle(order, tied, words[1:])
    return order


def _settle(
    order: npt.NDArray[np.intp], tied: npt.NDArray[np.bool_], rest: list[npt.NDArray[np.uint64]]
) -> None:
    """Put rows whose first words are equal into order: by the rest of the key, then by place."""
    member = np.zeros(len(order), np.bool_)
    member[1:] |= tied
    member[:-1] |= tied
    places = np.flatnonzero(member)
    # The number of the group that each belongs to: a new one begins where the tie is broken.
    starts = np.ones(len(order), np.bool_)
    starts[1:] = ~tied
    group = np.cumsum(starts)[places]
    rows = order[places]
    keys = [rows, *(word[rows] for word in reversed(rest)), group]
    order[places] = rows[np.lexsort(keys)]


def map_split(
    job: Job,
    split: Split,
    cuts: Sequence[bytes],
    task: Task,
    write_run: Callable[[int, Iterable[bytes], int], None],
) -> None:
    """Read a split, and write a sorted run a part for each window of it."""
    size = job.record_bytes
    window = max(1, job.memory_bytes // WINDOWS // size) * size
    with open_input(split.path) as file:
        file.seek(split.offset)
        left = split.length if split.length >= 0 else 1 << 62
        while left > 0 and (data := file.read(min(window, left))):
            left -= len(data)
            if len(data) % size:
                raise BadJob(f"{split.path}: its last record is cut off")
            rows = rows_of(data, size)
            task.progress[1] += len(data)
            task.own("map_input_records", len(rows))
            task.own("map_output_records", len(rows))
            order = order_of(rows, job.key_bytes)
            for part, part_order in enumerate(_parts(job, rows, order, cuts)):
                if len(part_order):
                    write_run(part, _blocks(rows, part_order), len(part_order))


def _parts(
    job: Job, rows: Rows, order: npt.NDArray[np.intp], cuts: Sequence[bytes]
) -> list[npt.NDArray[np.intp]]:
    """The sorted order, cut into parts."""
    if job.reduces == 1:
        return [order]
    if job.partition == "range":
        bounds = [0, *(_position(rows, order, cut, job.key_bytes) for cut in cuts), len(order)]
        bounds += [len(order)] * (job.reduces + 1 - len(bounds))
        return [order[bounds[i] : bounds[i + 1]] for i in range(job.reduces)]
    from mapreduce.keys import hash_partition

    keys = [row[: job.key_bytes].tobytes() for row in rows[order]]
    homes = np.array(hash_partition(keys, job.reduces))
    return [order[homes == part] for part in range(job.reduces)]


def _position(rows: Rows, order: npt.NDArray[np.intp], cut: bytes, key_bytes: int) -> int:
    """How many of the sorted rows are below `cut`."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if rows[order[middle], :key_bytes].tobytes() < cut:
            low = middle + 1
        else:
            high = middle
    return low


def _blocks(rows: Rows, order: npt.NDArray[np.intp]) -> Iterator[bytes]:
    step = max(1, BLOCK_BYTES // rows.shape[1])
    for start in range(0, len(order), step):
        chosen = order[start : start + step]
        yield frame(rows[chosen].tobytes(), len(chosen))


def reduce_runs(
    job: Job, runs: Sequence[Run], task: Task, write: Callable[[bytes], object]
) -> None:
    """Merge sorted runs into the output."""
    total = sum(run.count for run in runs)
    task.progress[2] = max(total, 1)
    budget = job.memory_bytes // WINDOWS // job.record_bytes
    stretches = _whole(job, runs, total) if total <= budget else _windows(job, runs, budget)
    for rows, order in stretches:
        step = max(1, BLOCK_BYTES // job.record_bytes)
        for start in range(0, len(order), step):
            write(rows[order[start : start + step]].tobytes())
        task.progress[1] += len(order)
    task.own("reduce_input_groups", total)
    task.own("reduce_output_records", total)


def _whole(job: Job, runs: Sequence[Run], total: int) -> Iterator[tuple[Rows, Any]]:
    """Everything at once."""
    rows = np.empty((total, job.record_bytes), np.uint8)
    at = 0
    for run in runs:
        with Path(run.path).open("rb") as file:
            for payload, count in read_payloads(file, run):
                rows[at : at + count] = rows_of(payload, job.record_bytes)
                at += count
    yield rows, order_of(rows, job.key_bytes)


class _Window:
    """What is loaded of one run."""

    def __init__(self, job: Job, run: Run, file: BinaryIO, room: int) -> None:
        self._job = job
        self._payloads = read_payloads(file, run)
        self._room = room
        self.rows = np.empty((0, job.record_bytes), np.uint8)
        self.more = True
        self.load()

    def load(self) -> None:
        """Blocks behind what is left, until there is a window of them."""
        parts = [self.rows]
        count = len(self.rows)
        while self.more and count < self._room:
            payload = next(self._payloads, None)
            if payload is None:
                self.more = False
            else:
                parts.append(rows_of(payload[0], self._job.record_bytes))
                count += payload[1]
        self.rows = np.concatenate(parts)

    def below(self, bound: bytes, *, equal: bool) -> int:
        """How many rows have keys below `bound`, or equal to it."""
        low, high = 0, len(self.rows)
        while low < high:
            middle = (low + high) // 2
            key = self.rows[middle, : self._job.key_bytes].tobytes()
            if key < bound or (equal and key == bound):
                low = middle + 1
            else:
                high = middle
        return low

    def take(self, count: int) -> Rows:
        """The first rows; others are loaded behind the rest."""
        taken, self.rows = self.rows[:count], self.rows[count:]
        return taken


def _windows(job: Job, runs: Sequence[Run], budget: int) -> Iterator[tuple[Rows, Any]]:
    """The k-way merge of merge.py, on arrays."""
    room = max(64, budget // max(1, len(runs)))
    with ExitStack() as stack:
        files = [stack.enter_context(Path(run.path).open("rb")) for run in runs]
        windows = [_Window(job, run, file, room) for run, file in zip(runs, files, strict=True)]
        while windows := [w for w in windows if len(w.rows)]:
            unread = [w.rows[-1, : job.key_bytes].tobytes() for w in windows if w.more]
            if unread:
                bound = min(unread)
                counts = [w.below(bound, equal=False) for w in windows]
                if not any(counts):
                    yield from _equal(windows, bound)
                    continue
            else:
                counts = [len(w.rows) for w in windows]
            rows = np.concatenate([w.take(n) for w, n in zip(windows, counts, strict=True)])
            yield rows, order_of(rows, job.key_bytes)
            for window in windows:
                window.load()


def _equal(windows: list[_Window], key: bytes) -> Iterator[tuple[Rows, Any]]:
    """The records of one key that fills whole windows, run by run."""
    for window in windows:
        while count := window.below(key, equal=True):
            rows = window.take(count)
            yield rows, np.arange(len(rows))
            window.load()
