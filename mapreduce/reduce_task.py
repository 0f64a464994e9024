"""One reduce: merge the sorted runs of a part, group them by key, run the user's code (5, 6).

Runs come in the order of the maps that made them, and the merge is stable, so a reducer sees the
values of a key in the order of the input, whoever was fetched first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from mapreduce import fixed
from mapreduce.blocks import Pair, Run
from mapreduce.context import Task
from mapreduce.job import Job
from mapreduce.keys import from_descending
from mapreduce.map_task import write_lines
from mapreduce.merge import merge_files
from mapreduce.messages import REDUCE
from mapreduce.programs import Program

first, second = itemgetter(0), itemgetter(1)


def run_reduce(
    job: Job,
    program: Program,
    runs: Sequence[Run],
    task: Task,
    scratch: Path,
    write: Callable[[bytes], object],
    *,
    skip: frozenset[int] = frozenset(),
) -> None:
    """Run one reduce over the runs of its part; `write` takes the output."""
    if job.record_bytes:
        fixed.reduce_runs(job, runs, task, write)
        return
    task.progress[2] = max(1, sum(run.count for run in runs))
    stretches = _counted(merge_files(runs, scratch), task)
    sorts = job.sort_values or program.sorts_values
    groups = grouped(chain.from_iterable(stretches), sorts, job.order == "descending")
    tracked = task.tracked(groups, skip, blames=REDUCE in program.blames)
    write_lines(program.reduce_groups(tracked, task), task, write)


def _counted(stretches: Iterable[list[Pair]], task: Task) -> Iterator[list[Pair]]:
    progress = task.progress
    for stretch in stretches:
        progress[1] += len(stretch)
        yield stretch


def grouped(
    pairs: Iterable[Pair], sort_values: bool, is_descending: bool
) -> Iterator[tuple[bytes, Iterable[Any]]]:
    """The values of each key, as they come; all of it in C but for one step a key."""
    for key, group in groupby(pairs, first):
        values: Iterable[Any] = map(second, group)
        if is_descending:
            key = from_descending(key)
        yield key, in_order(values) if sort_values else values


def in_order(values: Iterable[Any]) -> list[Any]:
    """The values of a key, sorted; a line of a command that has none comes first."""
    return sorted(values, key=lambda value: (value is not None, value))
