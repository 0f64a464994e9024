"""One attempt at one task, where the user's code runs: in a child, or in this process (--local).

Whatever happens in it comes out as a Result: what was made, or a Failure that names the record and
says where the code was. Nothing that an attempt writes is seen by anybody before it is committed:
a map's file has the attempt's name, a reduce's output lies in `_temporary` until it is renamed.
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fsspec

from mapreduce.blocks import Run
from mapreduce.context import Numbers, Task
from mapreduce.errors import BadJob, CommandFailed, DamagedRun, RecordTooLong
from mapreduce.map_task import run_map, run_map_only
from mapreduce.messages import MAP, Failure, Mission, Result
from mapreduce.programs import Program
from mapreduce.reduce_task import run_reduce
from mapreduce.ring_urls import bytes_read_of, options_of_output
from mapreduce.store.errors import StoreError

TEMPORARY: Final = "_temporary"

# Output is handed to the file system in pieces of at least this size.
WRITE_BYTES: Final = 4 * 1024 * 1024

FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def part_name(index: int) -> str:
    """The name of one part of the output."""
    return f"part-{index:05d}"


def run_attempt(
    mission: Mission,
    program: Program,
    progress: Numbers | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Result:
    """Run it to its end; never raises what the user's code does."""
    start = mission.start
    split = start.split
    task = Task(
        args=mission.job.args,
        kind=start.kind,
        index=start.index,
        input=split.path if split else "",
        progress=progress,
        report=report,
    )
    began = time.monotonic()
    try:
        before = bytes_read_of(task.input)
        runs = _run(mission, program, task)
        for where, count in bytes_read_of(task.input).items():
            task.own(f"{where}_bytes_read", count - before.get(where, 0))
    except Exception as error:
        return _result(mission, task, began, failure=_failure(error, task))
    return _result(mission, task, began, path=mission.out, runs=runs)


def _run(mission: Mission, program: Program, task: Task) -> list[list[list[int]]]:
    start, job = mission.start, mission.job
    skip = frozenset(start.skip)
    if start.kind == MAP and job.reduces:
        assert start.split is not None
        path = Path(mission.out)
        return run_map(
            job, program, start.split, mission.cuts, task, path, skip=skip, careful=start.careful
        )
    with writing(mission.out) as write:
        if start.kind == MAP:
            assert start.split is not None
            run_map_only(job, program, start.split, task, write, skip=skip, careful=start.careful)
        else:
            runs = [Run(*fields) for fields in mission.runs]
            run_reduce(job, program, runs, task, Path(mission.folder), write, skip=skip)
    return []


@contextmanager
def writing(path: str) -> Iterator[Callable[[bytes], object]]:
    """A file of the output's file system, written in large pieces; closed whatever happens."""
    fs, name = fsspec.core.url_to_fs(path)
    fs.makedirs(name.rpartition("/")[0], exist_ok=True)
    waiting: list[bytes] = []
    size = 0
    with fs.open(name, "wb", **options_of_output(path)) as file:

        def write(data: bytes) -> None:
            nonlocal size
            waiting.append(data)
            size += len(data)
            if size >= WRITE_BYTES:
                file.write(b"".join(waiting))
                waiting.clear()
                size = 0

        yield write
        file.write(b"".join(waiting))


def _result(mission: Mission, task: Task, began: float, **more: Any) -> Result:
    start = mission.start
    counters: dict[str, dict[str, int]] = {}
    for (group, name), amount in sorted(task.counters.items()):
        counters.setdefault(group, {})[name] = amount
    return Result(
        attempt=start.attempt,
        job_id=start.job_id,
        kind=start.kind,
        index=start.index,
        counters=counters,
        skipped=[list(entry) for entry in task.skipped],
        seconds=time.monotonic() - began,
        **more,
    )


def _failure(error: Exception, task: Task) -> Failure:
    kind, source, record = "raised", -1, task.progress[0]
    if isinstance(error, (BadJob, RecordTooLong)):
        kind = "job"
    elif isinstance(error, DamagedRun):
        kind, source, record = "source", error.source, 0
    elif isinstance(error, OSError) and error.errno in FULL:
        kind, record = "disk", 0
    elif isinstance(error, FileNotFoundError) and not record:
        kind = "job"
    elif isinstance(error, StoreError):
        kind, record = "store", 0  # it was at a record, which is not to blame
    # Of the store and of commands it would tell of us alone; a command's last lines tell more.
    ours = kind == "store" or isinstance(error, CommandFailed)
    text = "" if ours else "".join(traceback.format_exception(error))
    return Failure(
        kind=kind,
        message=f"{type(error).__name__}: {error}"[:2000],
        record=record,
        traceback=text[-8000:],
        source=source,
    )
